"""What MLflow's page shows of an experiment and of a run: the kind of page, the first chart, columns, descriptions.

In MLflow 3.17, the columns of the table of runs are the source, the registered models and the dataset, unless a user opens a
saved view (`mlflow_view`) or chooses others.
"""

import getpass
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from wavegan_dist import config
from wavegan_dist.errors import UsageError
from wavegan_dist.files import parse_json
from wavegan_dist.markdown import code
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_view import VIEW_ID, VIEW_TAG, view_tag

DIGEST_LENGTH = 36  # MLflow's limit


def experiment_tags(number: str) -> dict[str, str]:
    """Return the tags that the MLflow experiment with the id `number` should have, by name."""
    view = f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={VIEW_ID}"
    return {
        "mlflow.experimentKind": "custom_model_development",  # a page of model training, not of GenAI
        "mlflow.experiment.primaryMetric.name": "eval/fwd",  # the first chart
        "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
        "mlflow.note.content": f"The best runs first: [table]({view}), [charts]({view}&compareRunsMode=CHART)",
        VIEW_TAG: view_tag(),
    }


def run_tags(folder: RunFolder) -> dict[str, str]:
    """Return the tags from which MLflow's page shows the source, the user, the commit and the description of a run.

    Without a readable environment.json, there are no commit and no description.
    """
    tags = {"mlflow.source.name": "wavegan train", "mlflow.source.type": "LOCAL", "mlflow.user": getpass.getuser()}
    environment = _environment(folder)
    with suppress(KeyError):
        tags["mlflow.note.content"] = _description(environment, folder)
    commit = str(environment.get("git_commit", "unknown"))
    return tags if commit == "unknown" else {**tags, "mlflow.source.git.commit": commit.removesuffix("+")}


def dataset_input(folder: RunFolder) -> Any | None:
    """Return the run's dataset as MLflow's DatasetInput; None if config.yaml or environment.json is missing or damaged."""
    digest = _environment(folder).get("index_digest")
    try:
        indexes = [redacted(one.index) for one in config.load(folder.config).data.sets]
    except UsageError:
        return None
    if digest is None:
        return None
    from mlflow.entities import Dataset, DatasetInput, InputTag

    names = [_dataset_name(indexes[0])] if len(indexes) == 1 else config.set_names(indexes)
    source = json.dumps({"uri": indexes[0] if len(indexes) == 1 else indexes})
    dataset = Dataset(name=" + ".join(names)[:500], digest=str(digest)[:DIGEST_LENGTH], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _dataset_name(index: str) -> str:
    """Return the name of the folder of a dataset that is not mixed with others."""
    if "://" in index or index.startswith("pipe:"):
        return config.set_names([index])[0]
    path = Path(index).absolute()
    return (path.parent if path.suffix == ".json" else path).name


def _description(environment: dict[str, Any], folder: RunFolder) -> str:
    """Return Markdown that begins with the settings of the command line: a column shows only the beginning.

    Raises:
        KeyError: `environment`, the content of environment.json, lacks an entry.
    """
    arguments = [str(argument) for argument in environment["command"][1:]]
    settings = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    command = code(shlex.join(["wavegan", *arguments]))
    hardware = f"{environment['world_size']} x {environment['device']} on {environment['host']}"
    place = f"{hardware}, commit {environment['git_commit']}, folder {code(folder.path)}"
    return "\n\n".join([*([" ".join(settings)] if settings else []), command, place])


def _environment(folder: RunFolder) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = parse_json(folder.environment.read_text())
        return content if isinstance(content, dict) else {}
    return {}

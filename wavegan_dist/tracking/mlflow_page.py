"""What MLflow's page shows of an experiment and of a run by default: the kind of page, the first chart, the first columns.

In MLflow 3.17, the columns of the table of runs are the source, the registered models and the dataset.
"""

import getpass
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from wavegan_dist import config
from wavegan_dist.errors import UsageError
from wavegan_dist.redact import redacted
from wavegan_dist.run_folder import RunFolder

EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # a page of model training, not of GenAI
    "mlflow.experiment.primaryMetric.name": "eval/fwd",  # the first chart
    "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
}
DIGEST_LENGTH = 36  # MLflow's limit


def run_tags(folder: RunFolder) -> dict[str, str]:
    """Return the tags from which MLflow's page shows the source, the user and the commit of a run."""
    tags = {"mlflow.source.name": "wavegan train", "mlflow.source.type": "LOCAL", "mlflow.user": getpass.getuser()}
    commit = str(_environment(folder).get("git_commit", "unknown"))
    return tags if commit == "unknown" else {**tags, "mlflow.source.git.commit": commit.removesuffix("+")}


def dataset_input(folder: RunFolder) -> Any | None:
    """Return the run's dataset as MLflow's DatasetInput; None if the folder has no readable config and environment."""
    digest = _environment(folder).get("index_digest")
    try:
        indexes = [redacted(one.index) for one in config.load(folder.config).data.sets]
    except UsageError:
        return None
    if digest is None:
        return None
    from mlflow.entities import Dataset, DatasetInput, InputTag

    names = [Path(indexes[0].removesuffix("/index.json")).name] if len(indexes) == 1 else config.set_names(indexes)
    source = json.dumps({"uri": indexes[0] if len(indexes) == 1 else indexes})
    dataset = Dataset(name=" + ".join(names)[:500], digest=str(digest)[:DIGEST_LENGTH], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _environment(folder: RunFolder) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(folder.environment.read_text())
        return content if isinstance(content, dict) else {}
    return {}

"""One run of `quality.py` in a process of its own: warms up, waits for its turn, trains, evaluates the EMA."""

import re
from collections.abc import Callable
from typing import Any

from gpu.common import Section, serve
from gpu.quality import metric_names
from gpu.training import settings, train
from wavegan_dist.data import load_training_data
from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.model.snapshot import load_snapshot, save_snapshot
from wavegan_dist.sample import sample

GRID = 64  # images


def run(task: dict[str, Any], wait: Callable[[], float]) -> dict[str, Any]:
    """Train and evaluate `task`: model, seed and overrides; return the images seen, lam, the metrics and their floors."""
    section = Section("quality", __doc__)
    experiment = settings(section, [f"seed={task['seed']}", "data.workers=1", *task["overrides"]])
    trainer, speed = train(section, experiment, wait)
    digest = load_training_data(experiment.data).digest
    snapshot = section.out / "quality" / re.sub(r"\W+", "_", f"{task['model']}_{task['seed']}")
    save_snapshot(snapshot, trainer.ema.layout, trainer.ema.iter_full_tensors(), experiment, trainer.nimg, digest)
    sample(load_snapshot(snapshot), GRID, 0, snapshot.with_suffix(".png"), section.device)
    result = evaluate_snapshot(snapshot, section.data(), metric_names(section))
    assert result is not None
    values = result.model_dump(include={"metrics", "floors", "intervals", "protocol"})
    return {"kimg": trainer.nimg / 1000, "lam": trainer.lam(), **speed, **values}


if __name__ == "__main__":
    serve(run)

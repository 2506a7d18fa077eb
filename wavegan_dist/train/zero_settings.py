"""DeepSpeed's settings: what `train.strategy` says, and what a file may add. Nothing here imports DeepSpeed."""

import importlib.util
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from wavegan_dist.config import Experiment, FileKind, TrainConfig
from wavegan_dist.errors import UsageError

# Ours to set: by the experiment, or so that DeepSpeed leaves weights, gradients and Adam in float32 as the other strategies do.
OWNED = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_clipping": "optim.clip_norm",
    "optimizer": "optim.*",
    "scheduler": "optim.*",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "torch_autocast": "train.precision",
    "amp": "train.precision",
    "data_types": "train.precision",
    "communication_data_type": "train.precision",
    "zero_allow_untested_optimizer": "nothing: it is always true",
    "zero_force_ds_cpu_optimizer": "nothing: it is always false",
}
BUCKET = 2**22  # numbers in a message: 16 MiB, as large as DDP's; DeepSpeed's own 5e8 would take 2 GB
GATHERED = 2**24  # weights that stage 3 may keep whole; with DeepSpeed's own 1e9 it would let go of none of such a model
DEEPSPEED_FILE = FileKind("DeepSpeed config", "launchers/deepspeed/zero2.json is an example", json.loads)


class DeepSpeedFile(BaseModel):
    """The JSON file `train.deepspeed`: any settings of DeepSpeed, which DeepSpeed validates itself."""

    model_config = ConfigDict(extra="allow")
    zero_optimization: dict[str, Any] = {}


def check(train: TrainConfig, processes: int) -> None:
    """Raise UsageError unless a zero strategy can run: DeepSpeed is there, and so are processes to share the state."""
    if train.strategy == "ddp":
        return
    if processes == 1:
        raise UsageError(
            f"train.strategy = {train.strategy} shares the state among processes, and there is 1; "
            "start more of them or set train.strategy=ddp (a checkpoint goes on under either)"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise UsageError(f"train.strategy = {train.strategy} needs DeepSpeed; pip install 'wavegan-dist[deepspeed]'")
    _from_file(train)


def settings(experiment: Experiment, processes: int) -> dict[str, Any]:
    """What `deepspeed.initialize` is to get: the file of `train.deepspeed` and, over it, what the experiment says."""
    train = experiment.train
    file = _from_file(train)
    zero = {"reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET, "stage3_prefetch_bucket_size": BUCKET}
    zero |= {"stage3_max_live_parameters": GATHERED, "stage3_max_reuse_distance": GATHERED}
    return {
        "steps_per_print": None,
        **file,
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": train.batch_size // (processes * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": experiment.optim.clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {**zero, **file.get("zero_optimization", {}), "stage": stage(train)},
    }


def stage(train: TrainConfig) -> int:
    """1, 2 or 3."""
    return int(train.strategy.removeprefix("zero"))


def _from_file(train: TrainConfig) -> dict[str, Any]:
    path = train.deepspeed
    if path is None:
        return {}
    tree = DEEPSPEED_FILE.read(path)
    told = DEEPSPEED_FILE.validate(DeepSpeedFile, tree, str(path)).model_dump(exclude_unset=True)
    if owned := sorted(OWNED.keys() & told.keys()):
        raise UsageError(f"{path}: '{owned[0]}' is not for this file to say; take it out and set {OWNED[owned[0]]}")
    zero = told.get("zero_optimization", {})
    if zero.get("stage", stage(train)) != stage(train):
        raise UsageError(f"{path} is for stage {zero['stage']} but train.strategy = {train.strategy}; make them agree")
    return told

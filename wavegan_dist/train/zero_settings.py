"""DeepSpeed's configuration: what `train.strategy` implies and what the file `train.deepspeed` may add.

Does not import DeepSpeed, so that `wavegan plan` can use the constants.
"""

import importlib.util
from typing import Any

from pydantic import BaseModel, ConfigDict

from wavegan_dist.config import Experiment, FileKind, TrainConfig
from wavegan_dist.errors import UsageError
from wavegan_dist.files import parse_json

# Keys of DeepSpeed's configuration that the file may not contain, and the setting of the experiment to use instead. Some would
# make DeepSpeed keep weights, gradients or Adam's moments in another dtype than float32, unlike the other strategies.
EXPERIMENT_KEYS = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_clipping": "optim.clip_norm",
    "optimizer": "optim.*",
    "scheduler": "optim.*",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "torch_autocast": "train.precision",
    "amp": "train.precision",
    "data_types": "train.precision",
    "communication_data_type": "train.precision",
    "zero_allow_untested_optimizer": "nothing: it is always true",
    "zero_force_ds_cpu_optimizer": "nothing: it is always false",
}
# Elements in one message of gradients or weights: 16 MiB in float32. DeepSpeed's default of 5e8 would allocate 2 GB.
REDUCE_BUCKET_ELEMENTS = 2**22
# Elements of weights that stage 3 may keep gathered. With DeepSpeed's default of 1e9 a model of this size is never released.
LIVE_PARAMETERS = 2**24
DEEPSPEED_FILE = FileKind("DeepSpeed config", "launchers/deepspeed/zero2.json is an example", parse_json)


class DeepSpeedFile(BaseModel):
    """The JSON file `train.deepspeed`: any settings of DeepSpeed, which DeepSpeed validates itself."""

    model_config = ConfigDict(extra="allow")
    zero_optimization: dict[str, Any] = {}


def check_strategy(train: TrainConfig, world_size: int) -> None:
    """Check that `train.strategy` can run; `ddp` always can.

    Raises:
        UsageError: for ZeRO, if there is one process, DeepSpeed is not installed, or the file `train.deepspeed` cannot be read,
            sets what the experiment sets (EXPERIMENT_KEYS), or is for another stage.
    """
    if train.strategy == "ddp":
        return
    if world_size == 1:
        raise UsageError(
            f"train.strategy = {train.strategy} shards the training state over several processes, and there is 1; "
            "start more of them or set train.strategy=ddp (a checkpoint can be resumed under either)"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise UsageError(f"train.strategy = {train.strategy} needs DeepSpeed; pip install 'wavegan-dist[deepspeed]'")
    _load_file(train)


def deepspeed_config(experiment: Experiment, world_size: int) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`: the file `train.deepspeed`, overridden by the experiment.

    Args:
        experiment: the settings, with a ZeRO strategy that `check_strategy` accepts.
        world_size: number of processes.

    Raises:
        UsageError: the file cannot be read, sets what the experiment sets (EXPERIMENT_KEYS), or is for another stage.
    """
    train = experiment.train
    file = _load_file(train)
    zero = dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size"), REDUCE_BUCKET_ELEMENTS)
    zero |= dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance"), LIVE_PARAMETERS)
    return {
        "steps_per_print": None,
        **file,
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": train.batch_size // (world_size * train.accumulation),
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": experiment.optim.clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {**zero, **file.get("zero_optimization", {}), "stage": zero_stage(train)},
    }


def zero_stage(train: TrainConfig) -> int:
    """Return the ZeRO stage, 1, 2 or 3; `train.strategy` must be zero1, zero2 or zero3."""
    return int(train.strategy.removeprefix("zero"))


def _load_file(train: TrainConfig) -> dict[str, Any]:
    path = train.deepspeed
    if path is None:
        return {}
    tree = DEEPSPEED_FILE.read(path)
    content = DEEPSPEED_FILE.validate(DeepSpeedFile, tree, str(path)).model_dump(exclude_unset=True)
    if reserved := sorted(EXPERIMENT_KEYS.keys() & content.keys()):
        key = reserved[0]
        raise UsageError(f"{path}: '{key}' must not be set in this file; remove it and set {EXPERIMENT_KEYS[key]}")
    zero = content.get("zero_optimization", {})
    if zero.get("stage", zero_stage(train)) != zero_stage(train):
        raise UsageError(f"{path} is for stage {zero['stage']} but train.strategy = {train.strategy}; make them agree")
    return content

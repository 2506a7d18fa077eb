"""The settings of the optimizers, the training loop and the average of the weights: `optim`, `train` and `ema`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from wavegan_dist.config.section import MAY_CHANGE, Count, Kimg, Section, positive
from wavegan_dist.errors import UsageError

# Half-lives of EMAs are part of the names of their snapshots, with six decimals: closer ones would share a name.
HALF_LIFE_STEP, LONGEST_HALF_LIFE = 1e-6, 1e9  # kimg


class OptimConfig(Section):
    """Adam, for generators and discriminators."""

    lr_g: PositiveFloat = Field(2e-4, description="learning rate of the generators")
    lr_d: PositiveFloat = Field(2e-4, description="learning rate of the discriminators")
    lr_warmup_kimg: float = Field(
        0.0, ge=0, le=1e9, description="both learning rates rise linearly from 0 over this many kimg; 0: no warm-up"
    )
    lr_decay: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: both learning rates fall along half a cosine, over optim.lr_decay_kimg"
    )
    lr_decay_kimg: Kimg | None = Field(
        None,
        validate_default=True,
        description="kimg at which the cosine ends; the rates then stay constant. A separate setting, because "
        "train.total_kimg may change on resume",
    )
    lr_final: float = Field(0.0, ge=0, le=1, description="factor of both learning rates at the end of the cosine")
    beta1: float = Field(0.0, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")
    clip_norm: PositiveFloat | None = Field(
        None, description="largest gradient norm in a phase; larger gradients are clipped; null: no clipping"
    )

    @field_validator("lr_decay_kimg")
    @classmethod
    def _check_lr_decay_kimg(cls, value: float | None, info: ValidationInfo) -> float | None:
        decay = info.data.get("lr_decay")
        if decay == "cosine" and value is None:
            raise ValueError("optim.lr_decay = cosine needs its length; set this key, for example to train.total_kimg")
        if decay == "constant" and value is not None:
            raise ValueError(f"{value:g} has no effect on constant rates; set optim.lr_decay=cosine or this key to null")
        warmup = info.data.get("lr_warmup_kimg")
        if value is not None and warmup is not None and warmup > value:
            raise ValueError(f"the cosine ends at {value:g} kimg, before optim.lr_warmup_kimg = {warmup:g}; make it longer")
        return value

    @field_validator("lr_final")
    @classmethod
    def _check_lr_final(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("lr_decay") == "constant":
            raise ValueError(f"{value:g} has no effect on constant rates; set optim.lr_decay=cosine or this key to 0")
        return value


class TrainConfig(Section):
    """Training loop. Lengths are in kimg: thousands of real images shown to the discriminators."""

    batch_size: Count = Field(64, description="images per optimizer step, over all processes")
    d_steps: Count = Field(1, description="discriminator phases per generator phase; each has one optimizer step")
    total_kimg: Kimg = Field(1000.0, description="length of the run", json_schema_extra=MAY_CHANGE)
    snapshot_kimg: Kimg = Field(
        50.0, description="interval between snapshots: EMA weights and a sample grid", json_schema_extra=MAY_CHANGE
    )
    checkpoint_kimg: Kimg = Field(
        50.0, description="interval between checkpoints, from which a run resumes", json_schema_extra=MAY_CHANGE
    )
    keep_checkpoints: PositiveInt = Field(3, description="number of newest checkpoints to keep", json_schema_extra=MAY_CHANGE)
    keep_checkpoint_kimg: Kimg | None = Field(
        None, description="interval between checkpoints that are never deleted; null: none", json_schema_extra=MAY_CHANGE
    )
    report_kimg: Kimg = Field(
        1.0, description="interval between reports: status lines, and values in MLflow", json_schema_extra=MAY_CHANGE
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3"] = Field(
        "ddp",
        description="ddp: no sharding; zero1: DeepSpeed shards the optimizer state; zero2: also gradients; zero3: also weights",
        json_schema_extra=MAY_CHANGE,
    )
    deepspeed: Path | None = Field(
        None, description="JSON file with further DeepSpeed settings, for zero1, zero2 and zero3", json_schema_extra=MAY_CHANGE
    )
    accumulation: Count = Field(
        1,
        description="micro-batches per optimizer step (gradient accumulation); batch statistics are those of a micro-batch",
        json_schema_extra=MAY_CHANGE,
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="dtype in which networks compute; weights are always fp32"
    )
    compile: Literal["off", "default", "graphs"] = Field(
        "off",
        description="default: torch.compile; graphs: also CUDA graphs, for small models on GPUs; needs strategy ddp",
        json_schema_extra=MAY_CHANGE,
    )
    tf32: bool = Field(False, description="use TF32 for fp32 matrix products and convolutions on GPUs")
    world_size: Count | None = Field(
        None,
        description="number of processes that must take part; null: as many as the launcher starts",
        json_schema_extra=MAY_CHANGE,
    )
    on_nonfinite: Literal["stop", "rollback"] = Field(
        "stop",
        description="what to do if a loss or gradient is not finite; rollback: load the last checkpoint, use other latents",
        json_schema_extra=MAY_CHANGE,
    )
    max_rollbacks: PositiveInt = Field(
        3, description="the run stops instead of rolling back more often than this", json_schema_extra=MAY_CHANGE
    )
    on_disk_error: Literal["stop", "continue"] = Field(
        "stop",
        description="what to do if the run folder cannot be written after the start of the run",
        json_schema_extra=MAY_CHANGE,
    )

    @field_validator("deepspeed")
    @classmethod
    def _check_deepspeed(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("strategy") == "ddp":
            raise ValueError("settings for DeepSpeed, but train.strategy is ddp; choose a zero strategy or unset this key")
        return value

    @field_validator("compile", mode="before")
    @classmethod
    def _read_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads the word off as false

    @field_validator("compile")
    @classmethod
    def _check_compile(cls, value: str, info: ValidationInfo) -> str:
        strategy = info.data.get("strategy", "ddp")
        if value != "off" and strategy != "ddp":
            raise ValueError(
                f"{value} does not work with train.strategy = {strategy}: DeepSpeed's hooks communicate between layers, "
                "outside of a graph; set this key to off or train.strategy to ddp"
            )
        return value


class EmaConfig(Section):
    """Exponential moving average of the generator's weights."""

    half_life_kimg: PositiveFloat | list[PositiveFloat] = Field(
        10.0,
        description="number of images, in thousands, after which the contribution of old weights to the average has halved; a "
        "list keeps several averages, each with its own snapshots; sample grids during training show the first",
    )
    rampup: float = Field(
        0.05, ge=0, description="upper limit of the half-life as a fraction of the images seen so far; 0: no limit"
    )

    @field_validator("half_life_kimg", mode="before")
    @classmethod
    def _check_half_lives(cls, value: object) -> object:
        """Return a number or a list of at least two: a list of one is the same setting as its number when a run is resumed."""
        half_lives = [positive(each) for each in (value if isinstance(value, list) else [value])]
        if not half_lives:
            raise ValueError("the list is empty; give at least one half-life")
        if not HALF_LIFE_STEP <= min(half_lives) <= max(half_lives) <= LONGEST_HALF_LIFE:
            raise ValueError(f"{value} is not within {HALF_LIFE_STEP:g} to {LONGEST_HALF_LIFE:g}")
        if len({round(each / HALF_LIFE_STEP) for each in half_lives}) < len(half_lives):
            raise ValueError(f"{value} names a half-life twice; give each once")
        return half_lives if len(half_lives) > 1 else half_lives[0]

    @property
    def half_lives_kimg(self) -> tuple[float, ...]:
        """All half-lives, in thousands of images, in the order of the setting; sample grids during training show the first."""
        return tuple(self.half_life_kimg) if isinstance(self.half_life_kimg, list) else (self.half_life_kimg,)


def check_batch_division(world_size: int, train: TrainConfig) -> None:
    """Raise UsageError unless `train.batch_size` is a multiple of `world_size` times `train.accumulation`."""
    if train.batch_size % (world_size * train.accumulation):
        micro_batches = f" in {train.accumulation} micro-batches each" if train.accumulation > 1 else ""
        raise UsageError(
            f"train.batch_size = {train.batch_size} does not divide among {world_size} processes{micro_batches}; "
            "make it a multiple"
        )

"""Imports DeepSpeed, which takes seconds, only when a ZeRO strategy needs it."""

import functools
import logging
import os
import warnings
from typing import Any

import torch
import torch.distributed as dist


@functools.cache
def load_deepspeed(device: torch.device) -> Any:
    """Return the module `deepspeed`, imported at the first call and set to use the default process group, which must exist.

    Args:
        device: a device of the type that training runs on; equal in all calls.

    Raises:
        ImportError: DeepSpeed is not installed; `zero_settings.check_strategy` reports that earlier.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)  # the run reports skipped steps and the like itself
    # Without this DeepSpeed compiles a shared-memory collective for two minutes; gloo works, too.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    return deepspeed

"""The compiled CPU kernels as operators `torch.ops.wavegan_cpu.*`, for float32, float64 and bfloat16."""

import functools
from multiprocessing import parent_process

import torch

from wavegan_dist.errors import WaveganError
from wavegan_dist.wavelet.cpu.build import build, library
from wavegan_dist.wavelet.fakes import memory_format_of, register_fakes

DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16})


@functools.cache
def load() -> str:
    """Load the operators into this process, compiling them first (about 20 s) if the cache does not have them.

    A child process of `multiprocessing` never compiles: there, operators that are not in the cache are an error.

    Returns:
        The name of the instruction set in use, such as "AVX2".

    Raises:
        WaveganError: the operators cannot be compiled or loaded; the message names the reason.
    """
    if parent_process() is not None and not library().exists():
        raise WaveganError("the CPU kernels are not built yet, and a worker process does not build them")
    path = build()
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise WaveganError(f"{path} does not load ({error}); delete it, then run `wavegan doctor --build`") from error
    register_fakes("wavegan_cpu", memory_format_of)
    return str(torch.ops.wavegan_cpu.select_instruction_set())

"""Train GANs of three generators and three discriminators that are joined by the 2D Haar wavelet transform.

The names in `__all__` are the public API (docs/api.md). Each is imported when it is first used: `import wavegan_dist` does not
import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegan_dist.errors import UsageError, WaveganError
    from wavegan_dist.evaluation_result import EvaluationResult
    from wavegan_dist.model import Snapshot, WaveletDiscriminator, WaveletGenerator, load_snapshot
    from wavegan_dist.wavelet import dwt, idwt, wavedec, waverec

__version__ = "0.2.0"

__all__ = [
    "EvaluationResult",
    "Snapshot",
    "UsageError",
    "WaveganError",
    "WaveletDiscriminator",
    "WaveletGenerator",
    "__version__",
    "dwt",
    "idwt",
    "load_snapshot",
    "wavedec",
    "waverec",
]

_MODULES = {
    "wavegan_dist.errors": ("UsageError", "WaveganError"),
    "wavegan_dist.evaluation_result": ("EvaluationResult",),
    "wavegan_dist.model": ("Snapshot", "WaveletDiscriminator", "WaveletGenerator", "load_snapshot"),
    "wavegan_dist.wavelet": ("dwt", "idwt", "wavedec", "waverec"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:  # PEP 562
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value

"""The 2D Haar wavelet transform and the fusion of the generator's outputs. Other packages import only the names in `__all__`.

`dwt` and `idwt` compute one level, `wavedec` and `waverec` several, `fuse` the generator's output. `choose` returns which
implementation runs on a device, `build` compiles the CPU kernels.
"""

from wavegan_dist.wavelet.choice import build, choose
from wavegan_dist.wavelet.ops import dwt, fuse, idwt, wavedec, waverec

__all__ = ["build", "choose", "dwt", "fuse", "idwt", "wavedec", "waverec"]

"""The 2D Haar wavelet transform and the generator's fusion of its outputs; other rooms import these names only.

`dwt` and `idwt` compute one level, `wavedec` and `waverec` several, `fuse` the generator's output. `choose` tells which
implementation runs on a device, `build` compiles the CPU kernels.
"""

from wavegan_dist.wavelet.choice import build, choose
from wavegan_dist.wavelet.ops import dwt, fuse, idwt, wavedec, waverec

__all__ = ["build", "choose", "dwt", "fuse", "idwt", "wavedec", "waverec"]

"""The 2D Haar wavelet transform and the fusion of the generator's outputs. Other packages import only the names in `__all__`.

`dwt` and `idwt` compute one level, `wavedec` and `waverec` several, `fuse` the generator's output. `choose` returns which
implementation runs on a device, `build` compiles the CPU kernels, and `decompositions` defines their operators.
"""

from wavegan_dist.wavelet.choice import build, choose, decompositions
from wavegan_dist.wavelet.ops import dwt, fuse, idwt, wavedec, waverec

__all__ = ["build", "choose", "decompositions", "dwt", "fuse", "idwt", "wavedec", "waverec"]

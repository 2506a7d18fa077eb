"""The orthonormal 2D Haar transform and the generator's mix; other rooms use these names only.

`dwt` and `idwt`, `wavedec` and `waverec` for several levels, `fuse` and `analyse` compute; `choose` says which kernel does it,
`build` compiles the CPU's again.
"""

from wavegan_dist.wavelet.choice import build, choose
from wavegan_dist.wavelet.ops import analyse, dwt, fuse, idwt, wavedec, waverec

__all__ = ["analyse", "build", "choose", "dwt", "fuse", "idwt", "wavedec", "waverec"]

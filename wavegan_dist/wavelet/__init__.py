"""The orthonormal 2D Haar transform and the generator's mix; other rooms use these names only.

`dwt`, `idwt`, `fuse` and `analyse` compute; `choose` says which kernel does it, `build` compiles the CPU's again.
"""

from wavegan_dist.wavelet.choice import build, choose
from wavegan_dist.wavelet.ops import analyse, dwt, fuse, idwt

__all__ = ["analyse", "build", "choose", "dwt", "fuse", "idwt"]

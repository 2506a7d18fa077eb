"""The orthonormal 2D Haar transform and the generator's mix; other rooms use these three names only."""

from wavegan_dist.wavelet.reference import dwt, fuse, idwt

__all__ = ["dwt", "fuse", "idwt"]

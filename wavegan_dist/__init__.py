"""Three generators and three discriminators joined by the 2D Haar wavelet transform."""

__version__ = "0.1.0"

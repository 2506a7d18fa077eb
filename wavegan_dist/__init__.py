"""Train GANs of three generators and three discriminators that are joined by the 2D Haar wavelet transform."""

__version__ = "0.1.0"

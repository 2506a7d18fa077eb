"""Backbones: the architectures of the six networks. `WaveletGenerator` and `WaveletDiscriminator` choose among them."""

"""Backbones of the six networks: the layers between a latent and an output, and between an input and a logit."""

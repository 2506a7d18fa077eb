"""Evaluation of snapshots: metrics between generated and real images.

This file imports nothing, so that `wavegan_dist.evaluate.result` can be imported without torch.
"""

"""Evaluation of snapshots: metrics between generated and real images.

Nothing is imported by this package itself: `wavegan_dist.evaluate.result` must stay free of torch.
"""

"""Evaluation of snapshots: metrics between generated and real images."""

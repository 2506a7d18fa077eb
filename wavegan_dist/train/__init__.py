"""The training loop, its phases, checkpoints and tracking."""

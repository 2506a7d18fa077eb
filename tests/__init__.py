"""The tests. Each process has one thread, because `make test` runs two at once: OpenMP's threads wait by spinning."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # is read when PyTorch is imported

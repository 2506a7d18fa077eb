"""Runs `wavegan` with a first step that never ends, as if it waited in a collective for a rank that is gone."""

import ctypes
import sys

from wavegan_dist.cli import main
from wavegan_dist.train.trainer import Trainer


def stuck(_self, _batches):
    print("stuck", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second never returns, not even for a signal
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


Trainer.step = stuck
sys.exit(main(sys.argv[1:]))

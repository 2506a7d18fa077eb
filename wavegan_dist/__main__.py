"""`python -m wavegan_dist`, the form that `accelerate launch -m` needs."""

import sys

from wavegan_dist.cli import main

sys.exit(main())

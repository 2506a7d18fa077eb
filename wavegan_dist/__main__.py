"""Makes `python -m wavegan_dist` the command `wavegan`, for `accelerate launch -m wavegan_dist`."""

import sys

from wavegan_dist.cli import main

sys.exit(main())

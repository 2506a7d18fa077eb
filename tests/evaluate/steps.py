"""One process of a group that evaluates; the result of rank 0 goes to a file: steps.py OUT SNAPSHOT INDEX."""

import sys
from pathlib import Path

from wavegan_dist.evaluate.evaluate import evaluate_snapshot
from wavegan_dist.processes import leave

out, snapshot, index = map(Path, sys.argv[1:])
result = evaluate_snapshot(snapshot, index, ("fwd", "swd", "spectrum", "bands", "glcm", "compression", "kid"), count=310)
if result is not None:
    result.write(out)
leave()

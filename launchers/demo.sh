#!/usr/bin/env bash
# Write shards of real photographs, train the full model in two processes, and evaluate the trained and the untrained network.
# The script can be repeated: existing shards are kept, and an interrupted run resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
export OMP_NUM_THREADS=1  # two processes on two cores

[ -e data/demo/index.json ] || "$bin/wavegan" shards write embedded data/demo --size 32
"$bin/accelerate" launch --config_file launchers/accelerate/cpu2.yaml -m wavegan_dist train --config configs/demo.yaml

# Sorted by name, snapshots are in the order of training: the first is the untrained network.
mapfile -t snapshots < <(find runs/demo/snapshots -maxdepth 1 -name 'kimg-*' | sort)
first=${snapshots[0]} last=${snapshots[-1]}
echo "evaluating $first and $last (about two minutes)"
for snapshot in "$first" "$last"; do
    printf '\n%s\n' "$snapshot"
    "$bin/accelerate" launch --config_file launchers/accelerate/cpu2.yaml -m wavegan_dist evaluate \
        --snapshot "$snapshot" --data data/demo/index.json --count 2000
done
"$bin/wavegan" compare runs/demo --out runs/demo/comparison
# tracking.json is the one file of a run that may hold a password.
store=$("$bin/python" -c 'import json
from wavegan_dist.redact import redacted
print(redacted(json.load(open("runs/demo/tracking.json"))["uri"]))')
cat <<END

  samples     runs/demo/samples/$(basename "$last").png
  metrics     runs/demo/evaluations/*.json, runs/demo/metrics.jsonl
  page        runs/demo/comparison/index.html
  MLflow      $bin/mlflow ui --backend-store-uri $store   then open http://127.0.0.1:5000
END

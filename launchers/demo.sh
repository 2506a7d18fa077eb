#!/usr/bin/env bash
# The main job from nothing: shards of real photographs, the three-and-three model in two processes, its evaluation
# beside that of the untrained network. Repeatable: what is there already is kept, a cut run goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}

[ -e data/demo/index.json ] || "$bin/wavegan" shards write embedded data/demo --size 32
"$bin/accelerate" launch --config_file launchers/accelerate/cpu2.yaml -m wavegan_dist train --config configs/demo.yaml

first=$(find runs/demo/snapshots -maxdepth 1 -name 'kimg-*' | sort | head -n 1)
last=$(find runs/demo/snapshots -maxdepth 1 -name 'kimg-*' | sort | tail -n 1)
for snapshot in "$first" "$last"; do
  "$bin/wavegan" evaluate --snapshot "$snapshot" --data data/demo/index.json --count 2000
done

cat <<END

Trained from noise ($first) to $last.
  samples     runs/demo/samples/$(basename "$last").png
  metrics     runs/demo/evaluations/*.json, runs/demo/metrics.jsonl
  MLflow      $bin/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db   then open http://127.0.0.1:5000
END

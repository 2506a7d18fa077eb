#!/usr/bin/env bash
# The main job from nothing: shards of real photographs, the three-and-three model in two processes, its evaluation
# beside that of the untrained network. Repeatable: existing results are kept, and an interrupted run resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
export OMP_NUM_THREADS=1  # two processes on two cores

[ -e data/demo/index.json ] || "$bin/wavegan" shards write embedded data/demo --size 32
"$bin/accelerate" launch --config_file launchers/accelerate/cpu2.yaml -m wavegan_dist train --config configs/demo.yaml

# `find` lists snapshots by name, which sorts them by image: the first is the untrained network.
mapfile -t snapshots < <(find runs/demo/snapshots -maxdepth 1 -name 'kimg-*' | sort)
first=${snapshots[0]} last=${snapshots[-1]}
echo "evaluating $first and $last (about two minutes)"
for snapshot in "$first" "$last"; do
    printf '\n%s\n' "$snapshot"
    "$bin/accelerate" launch --config_file launchers/accelerate/cpu2.yaml -m wavegan_dist evaluate \
        --snapshot "$snapshot" --data data/demo/index.json --count 2000
done
"$bin/wavegan" compare runs/demo --out runs/demo/comparison
store=$("$bin/python" -c 'import json; print(json.load(open("runs/demo/tracking.json"))["uri"])')
cat <<END

  samples     runs/demo/samples/$(basename "$last").png
  metrics     runs/demo/evaluations/*.json, runs/demo/metrics.jsonl
  page        runs/demo/comparison/index.html
  MLflow      $bin/mlflow ui --backend-store-uri $store   then open http://127.0.0.1:5000
END

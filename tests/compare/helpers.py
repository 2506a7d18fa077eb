"""Run folders that nobody trained: small results of evaluations, and reports."""

import json
from pathlib import Path
from typing import Any

PACKETS = ["LL.LL", "LL.LH", "LL.HL", "LL.HH", *(f"{a}.{b}" for a in ("LH", "HL", "HH") for b in ("LL", "LH", "HL", "HH"))]
CONDITIONS = {
    "snapshot_sha256": "1" * 64, "images_real": 100, "images_generated": 100, "image_size": 32, "seed": 0, "ema": True,
    "ema_half_life_kimg": 10.0, "index_digest": "2" * 64, "wavegan_dist": "0.1", "git_commit": "a" * 40, "code_digest": "b",
    "torch": "2.14", "device": "cpu", "exact": True, "class_counts": [50, 50],
}  # fmt: skip


def evaluation(nimg: int, metric: str = "kid_efflite0@128", classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    """Return the content of an evaluation result with three metrics, one named `metric`, and results of classes."""
    table = {"frequency": [0.1, 0.5, 0.9], "real_db": [0.0, -1.0, -2.0], "generated_db": [0.0, -1.5, -2.5]}
    of_classes = [
        {"label": label, "name": name, "images_real": 50, "images_generated": 50, "metrics": {"fwd": 0.75}, "intervals": {},
         "left_out": {"fid": "too few images"}}
        for label, name in enumerate(classes)
    ]  # fmt: skip
    return {
        "metrics": {"fwd": 0.5 + 1 / nimg, "spectrum_db": 1.5, metric: 0.1},
        "floors": {"fwd": 0.1, "spectrum_db": 0.5},
        "intervals": {"spectrum_db": [1.25, 1.75]},
        "tables": {"fwd_packets": {name: 0.1 + number for number, name in enumerate(PACKETS)}, "spectrum": table},
        "protocol": {**CONDITIONS, "nimg": nimg, "snapshot": f"runs/a/snapshots/kimg-{nimg}", "metrics": {"fwd": {"level": 2}}},
        "classes": of_classes,
    }


def point(nimg: int) -> dict[str, float]:
    """Return a line of metrics.jsonl."""
    return {"nimg": nimg, "kimg": nimg / 1000, "lam": 0.5, "loss/d_image": 1.0, "speed/seconds_per_kimg": 2.0}


def write_run(folder: Path, results: dict[str, dict[str, Any]], environment: dict[str, Any], **model: Any) -> Path:
    """Write a run folder with reports and the results of evaluations, by name, and return it."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps({"data": {"index": "x"}, "model": {"width": 4, **model}}))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point(nimg)) + "\n" for nimg in (500, 1000, 2000)))
    for name, result in results.items():
        (folder / "evaluations" / f"{name}.json").write_text(json.dumps(result))
    return folder

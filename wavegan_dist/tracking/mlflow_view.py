"""The saved view of the experiment: the columns and charts that MLflow 3.15 and later list under Runs > Views.

MLflow stores a saved view as an experiment tag: JSON with the compressed state of its page. Fields that the state lacks have
MLflow's defaults. MLflow documents neither the tag nor the state: tests/tracking/test_dashboard.py opens the view in a browser.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

VIEW_ID = "wavegan"  # in the URL of the view: ?viewStateShareKey=wavegan
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_ID}"
VIEW_NAME = "wavegan: best runs first"
CREATED = 1_764_288_000_000  # milliseconds since 1970; MLflow sorts the views by it
BEST = "best/fwd"
COST = "cost/device_hours"
COLUMNS = {  # width in pixels
    f"metrics.`{BEST}`": 110,
    "metrics.`eval/fwd`": 110,
    f"metrics.`{COST}`": 160,
    "attributes.`Description`": 300,
    "tags.`best_snapshot`": 140,
    "attributes.`Version`": 110,
    "attributes.`Dataset`": 200,
    "params.`model.backbone`": 140,
    "params.`model.width`": 120,
    "params.`loss.objective`": 130,
    "params.`train.batch_size`": 140,
    "params.`seed`": 80,
}
# Metrics of each chart. MLflow hides the charts of metrics that no visible run has.
QUALITY = (
    ("eval/fwd",),
    ("eval/spectrum_db",),
    ("eval/swd",),
    ("eval/glcm_bits",),
    ("eval/fd_efflite0_at_128",),
    ("eval/kid_efflite0_at_128",),
    ("eval/fid",),
)
TRAINING = (
    ("loss/d_image", "loss/d_low", "loss/d_high"),
    ("loss/g_image", "loss/g_low", "loss/g_high"),
    ("std_high/base", "std_high/branches", "std_high/fused"),
    ("lam",),
    ("grad_share/g_base", "grad_share/g_low", "grad_share/g_high"),
    ("watch/diversity",),
    ("speed/images_per_second",),
    (COST,),
)
PICTURES = ("samples", "spectrum")
# Sections that MLflow makes for the remaining metrics, by the part of their names before the last slash.
COLLAPSED = (
    "best", "eval", "loss", "grad_norm", "grad_share", "lr", "std_low", "std_high", "watch", "penalty", "augment", "speed",
    "cost", "memory", "data", "Model metrics", "System metrics",
)  # fmt: skip


def view_tag() -> str:
    """Return the value of the tag `VIEW_TAG`: fewer than 5000 characters, the limit of older versions of MLflow."""
    sections = {
        "Samples": [_chart("IMAGE", name, imageKeys=[name], step=0, showRunParams=False) for name in PICTURES],
        "Quality of snapshots": [_line(metrics) for metrics in QUALITY],
        "Training": [_line(metrics) for metrics in TRAINING],
        "Settings that differ": [_chart("DIFFERENCE", "settings", compareGroups=["Parameters"], showDifferencesOnly=True)],
    }
    state = {
        "orderByKey": f"metrics.`{BEST}`",
        "orderByAsc": True,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "isAccordionReordered": True,  # keep the order of the sections
        "compareRunSections": [_section(name) for name in sections] + [_section(name, display=False) for name in COLLAPSED],
        "compareRunCharts": [chart | {"metricSectionId": name} for name, charts in sections.items() for chart in charts],
    }
    compressed = b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": VIEW_NAME, "createdAt": CREATED, "state": f"deflate;{compressed}"})


def _section(name: str, *, display: bool = True) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": display}


def _line(metrics: Sequence[str]) -> dict[str, Any]:
    shared = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}  # the step; no smoothing
    return _chart("LINE", metrics[0], metricKey=metrics[0], selectedMetricKeys=metrics, **shared)


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"uuid": f"{VIEW_ID} {name}", "type": kind, **settings}

"""What a run would do on devices that are not here: speed, memory and cost from counts and device rates (docs/scaling.md)."""

from wavegan_dist.plan.hardware import Hardware, Link, load_hardware
from wavegan_dist.plan.predict import Row, predict
from wavegan_dist.plan.strategy import STRATEGIES
from wavegan_dist.plan.table import as_json, format_plan

__all__ = ["STRATEGIES", "Hardware", "Link", "Row", "as_json", "format_plan", "load_hardware", "predict"]

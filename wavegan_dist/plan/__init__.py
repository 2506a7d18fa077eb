"""Predict a run's speed, memory and cost on hardware that a file describes, from operator counts and device rates.

docs/scaling.md has the equations, the assumptions and the measured error.
"""

from wavegan_dist.plan.fits import check_memory
from wavegan_dist.plan.hardware import Hardware, Link, load_hardware
from wavegan_dist.plan.predict import Prediction, predict
from wavegan_dist.plan.strategy import STRATEGIES
from wavegan_dist.plan.table import format_plan, plan_json

__all__ = [
    "STRATEGIES",
    "Hardware",
    "Link",
    "Prediction",
    "check_memory",
    "format_plan",
    "load_hardware",
    "plan_json",
    "predict",
]

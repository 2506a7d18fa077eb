"""MLflow tracking from outside the training process: docs/reliability.md.

The run appends events to a spool file; a sidecar process delivers them to MLflow, so that no step waits for the server.
"""

from wavegan_dist.tracking.best import best_metric, tag_best, update_best
from wavegan_dist.tracking.spool import format_counts, metric_name
from wavegan_dist.tracking.sync import log_evaluation, sync
from wavegan_dist.tracking.tracker import Tracker, open_tracker
from wavegan_dist.tracking.tracking_info import check_tracking, environment_uri, save_password

__all__ = [
    "Tracker",
    "best_metric",
    "check_tracking",
    "environment_uri",
    "format_counts",
    "log_evaluation",
    "metric_name",
    "open_tracker",
    "save_password",
    "sync",
    "tag_best",
    "update_best",
]

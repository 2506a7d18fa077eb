"""MLflow, in a process of its own: a run appends what it has to say to a file, a sidecar delivers it; docs/reliability.md."""

from wavegan_dist.tracking.spool import told
from wavegan_dist.tracking.sync import log_metrics, log_tags, sync
from wavegan_dist.tracking.tracker import Tracker

__all__ = ["Tracker", "log_metrics", "log_tags", "sync", "told"]

"""Refuses experiments that hold a password which the run folder, its snapshots and MLflow would show."""

from wavegan_dist.config.schema import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.redact import holds_password


def check_passwords(experiment: Experiment) -> None:
    """Raise UsageError if `data.index`, or the index of any of several datasets, holds a password (`redact.holds_password`).

    Only `tracking.uri` may hold a password: tracking.json stores it, and all other files and messages leave it out.
    """
    if any(holds_password(one.index) for one in experiment.data.sets):
        raise UsageError(
            "data.index holds a password, which the run folder, its snapshots and MLflow would show; put it into ~/.netrc "
            "(pipe:curl -sf --netrc URL/{file}) or into the environment (pipe:curl -sf -u NAME:$PASSWORD URL/{file})"
        )

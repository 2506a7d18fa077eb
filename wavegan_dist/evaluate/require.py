"""Packages of the extra `eval`, imported where a metric needs them."""

import contextlib
from types import ModuleType

from wavegan_dist.errors import UsageError


def require(name: str, who: str) -> ModuleType:
    """Import a module; UsageError, which says what to install for `who`, where it is not there."""
    with contextlib.suppress(ImportError):
        return __import__(name, fromlist=["_"])
    raise UsageError(f"{who} needs packages that are not installed: pip install 'wavegan-dist[eval]'")

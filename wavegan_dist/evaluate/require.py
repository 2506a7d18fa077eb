"""Imports packages of the extra `eval` when a metric or a page needs them."""

import contextlib
from types import ModuleType

from wavegan_dist.errors import UsageError


def require(name: str, needed_by: str) -> ModuleType:
    """Import and return the module `name`, such as "torch_fidelity.metric_fid".

    Raises:
        UsageError: the module cannot be imported; the message says that `needed_by` needs it and what to install.
    """
    with contextlib.suppress(ImportError):
        return __import__(name, fromlist=["_"])
    raise UsageError(f"{needed_by} needs packages that are not installed: pip install 'wavegan-dist[eval]'")

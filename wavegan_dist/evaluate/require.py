"""Imports packages of the extra `eval` when a metric or a page needs them."""

from types import ModuleType

import torch

from wavegan_dist.errors import UsageError


def require(name: str, needed_by: str) -> ModuleType:
    """Import and return the module `name`, such as "torch_fidelity.metric_fid".

    Raises:
        UsageError: the module cannot be imported; the message says that `needed_by` needs it and what to install.
    """
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise UsageError(f"{needed_by} needs packages that are not installed: pip install 'wavegan-dist[eval]'") from error
    except Exception as error:  # RuntimeError of torchvision beside a PyTorch of another release
        raise UsageError(
            f"{needed_by} needs {name}, whose import fails ({error}); if that is torchvision, install its release for torch "
            f"{torch.__version__}"
        ) from error

"""A cache of statistics and floors of real images: $XDG_CACHE_HOME/wavegan/evaluate, else ~/.cache/wavegan/evaluate.

An entry is named by the sha256 of its key. The key holds what the content depends on: the digest of the data set, the subset,
the feature, the extractor and the hash of its weights, the version of PyTorch and the digest of the source code. It lacks the
versions of the image decoders, and the processor, which may change pixels or rounding a little. Entries appear under their
names only when they are complete, so that several jobs may share the folder. Each entry carries its own sha256; a damaged entry
is computed again. The folder may be deleted at any time.
"""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from wavegan_dist.errors import WaveganError, describe
from wavegan_dist.evaluate.code_digest import code_digest
from wavegan_dist.files import atomic_file, save_tensors, sha256, user_cache
from wavegan_dist.log import log

DIGEST_BYTES = 32
CacheKey = dict[str, Any]  # any JSON-serializable values


def cache_folder() -> Path:
    """Return the path of the folder of all entries, whether or not it exists.

    Raises:
        WaveganError: XDG_CACHE_HOME is not set and the user has no home folder.
    """
    return user_cache() / "evaluate"


def read(key: CacheKey) -> dict[str, Tensor] | None:
    """Return the CPU tensors that `write` stored under an equal key, by name.

    Returns None if there is no such entry, or if the entry is damaged or cannot be read.

    Args:
        key: JSON values by name. The digest of the evaluation code and the version of PyTorch are added to every key.
    """
    try:
        with _path(key).open("rb") as file:
            end = file.seek(-DIGEST_BYTES, os.SEEK_END)
            digest = file.read()
            file.seek(0)
            body = file.read(end)
        return load(body) if hashlib.sha256(body).digest() == digest else None
    except (OSError, SafetensorError, WaveganError):
        return None


def write(key: CacheKey, tensors: dict[str, Tensor]) -> None:
    """Write the entry of a key, or replace it; if the file cannot be written, log a warning and return.

    Args:
        key: JSON values by name, as for `read`.
        tensors: the content by name, float32, float64 or int64, on any device.
    """
    try:
        path = _path(key)
        # A job on another node may have the same process id and be writing the same entry.
        file_of_node = path.with_name(f"{path.name}.{platform.node()}")
        with atomic_file(file_of_node, "wb") as file:
            save_tensors(tensors, tensors.items(), Path(file.name))  # without a copy, which may take gigabytes
            file.seek(0, os.SEEK_END)
            file.write(bytes.fromhex(sha256(Path(file.name))))
        file_of_node.replace(path)
    except OSError as error:
        log.warning("statistics of real images are not cached: %s", describe(error))
    except WaveganError as error:
        log.warning("statistics of real images are not cached: %s", error)


def _path(key: CacheKey) -> Path:
    complete = {**key, "code_digest": code_digest(), "torch": torch.__version__}
    return cache_folder() / f"{hashlib.sha256(json.dumps(complete, sort_keys=True).encode()).hexdigest()}.bin"

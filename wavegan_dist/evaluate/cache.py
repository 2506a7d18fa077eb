"""What was computed of real images, kept between evaluations: $XDG_CACHE_HOME/wavegan, else ~/.cache/wavegan.

An entry is named by the sha256 of its key, and the key is all that the content depends on: the digest of the data, the rows,
the extractor and the hash of its weights, the versions, and the digest of the source files. So nothing in it is ever stale.
Entries appear whole under their names, so jobs may share the folder; each carries its own sha256 and a damaged one is made
anew. The folder may be deleted at any time.
"""

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wavegan_dist.evaluate.code_digest import code_digest
from wavegan_dist.files import atomic_file

DIGEST_BYTES = 32
Key = dict[str, Any]


def folder() -> Path:
    """Where entries lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavegan" / "evaluate"


def read(key: Key) -> dict[str, Tensor] | None:
    """The tensors of an entry; None where there is none, or it is damaged."""
    try:
        content = _path(key).read_bytes()
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return load(body) if hashlib.sha256(body).digest() == digest else None
    except (OSError, SafetensorError):
        return None


def write(key: Key, tensors: dict[str, Tensor]) -> None:
    """Keep tensors; where that cannot be, say so and go on."""
    body = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    path = _path(key)
    # Jobs on other machines may have our process id and be writing the same entry.
    own = path.with_name(f"{path.name}.{platform.node()}")
    try:
        with atomic_file(own, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        own.replace(path)
    except OSError as error:
        print(f"wavegan: not cached: {path}: {error.strerror}", file=sys.stderr)


def _path(key: Key) -> Path:
    whole = {**key, "code_digest": code_digest(), "torch": torch.__version__}
    return folder() / f"{hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()}.bin"

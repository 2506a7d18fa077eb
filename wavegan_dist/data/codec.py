"""Images to bytes and back."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavegan_dist.errors import WaveganError

# How Pillow is asked for each encoding; JPEG keeps the colours at full resolution.
ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def encode(image: NDArray[np.uint8], encoding: str) -> bytes:
    """Bytes of a uint8 RGB [H, W, 3] image; `encoding` is one of ENCODINGS."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, **ENCODINGS[encoding])
    return buffer.getvalue()


def decode(content: bytes, size: int, name: str) -> NDArray[np.uint8]:
    """The uint8 RGB [size, size, 3] image in `content`.

    Raises:
        WaveganError: it cannot be decoded or has another size; the message calls it `name`.
    """
    try:
        image = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes
        raise WaveganError(f"{name} cannot be decoded; find what else is broken with `wavegan shards verify`") from error
    if image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise WaveganError(f"{name} is {width}x{height} px but the index says {size}x{size}; write the set again")
    return image

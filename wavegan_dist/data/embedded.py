"""The embedded dataset: color photographs that ship inside scikit-image and scikit-learn, so that no network is needed."""

from importlib.util import find_spec
from pathlib import Path

from wavegan_dist.errors import UsageError

# Files of installed packages. They are opened by path because the packages' own loaders may download them instead.
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
# Large and mostly black: a larger stride keeps their patches from outnumbering all others.
MOSTLY_BLACK = ("skimage/data/retina.jpg", "skimage/data/hubble_deep_field.jpg")


def embedded_pictures(size: int) -> list[tuple[Path, int]]:
    """List the photographs of the embedded dataset as (path, stride in pixels), for patches of `size` x `size` pixels.

    The stride is size // 4, and `size` for pictures that are mostly black. The order is always the same.

    Raises:
        UsageError: a package is not installed or no longer ships one of the photographs.
    """
    strides = dict.fromkeys(PHOTOGRAPHS, size // 4) | dict.fromkeys(MOSTLY_BLACK, size)
    return [(_installed_file(name), stride) for name, stride in strides.items()]


def _installed_file(name: str) -> Path:
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    path = Path(spec.origin).parent / rest if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UsageError(f"the embedded dataset needs {name}, which is not installed; pip install 'wavegan-dist[embedded]'")
    return path

"""The PNG files of images, in order of their numbers."""

from collections.abc import Collection, Iterator

from torch import Tensor

from wavegan_dist.images import encode_png
from wavegan_dist.sample.images import Images
from wavegan_dist.sample.workers import Workers


def encoded(workers: Workers, images: Images, missing: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content of a PNG file) of the images whose numbers are in `missing`, in the order of the numbers.

    If any image of a batch is missing, the whole batch is generated: outside exact mode, the pixels of an image may depend on
    the other images of the batch.

    Raises:
        WaveganError: an image is not finite.
    """
    batches = [batch for batch in images.batches() if any(number in missing for number in batch)]
    for content in workers.results(images, batches, _encode):
        yield from (entry for entry in content if entry[0] in missing)


def _encode(numbers: range, images: Tensor) -> list[tuple[int, bytes]]:
    return [(number, encode_png(image_chw)) for number, image_chw in zip(numbers, images, strict=True)]

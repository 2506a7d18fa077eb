"""One picture of a source: what the dataset needs to know before the file is opened, and the images that it gives."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from PIL import Image

from wavegan_dist.data.pixels import Pixels, center_crop, patches
from wavegan_dist.errors import WaveganError

REASON_SHOWN = 500  # largest number of characters of a decoder's message; some quote the file


class BadPictureError(WaveganError):
    """A picture that cannot be decoded.

    Args:
        name: name of the picture.
        reason: what is wrong with the content of the file, for the message.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read as an image ({reason}); repair or remove it")
        self.name, self.reason = name, reason

    @classmethod
    def of(cls, name: str, error: Exception) -> Self:
        """Return the error of a picture that a decoder failed to decode with `error`."""
        return cls(name, (" ".join(str(error).split()) or type(error).__name__)[:REASON_SHOWN])

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class Picture(NamedTuple):
    """One picture of a source; its file is opened by `load` only."""

    name: str  # for error messages
    fingerprint: str  # changes if the content may have changed
    label: int  # -1 if the picture has none
    stride: int  # of the patches to cut, in pixels; 0 crops and resizes the picture instead
    load: Callable[[], Image.Image]  # returns it as upright 8-bit RGB

    def images(self, size: int) -> list[Pixels] | Iterator[Pixels]:
        """Decode the picture at once and make its images, each uint8 RGB [size, size, 3].

        Returns:
            One center crop if `stride` is 0, else an iterator over the patches, of which there may be none (`pixels.patches`).

        Raises:
            BadPictureError: the picture cannot be decoded.
            OSError: its file cannot be read.
            WaveganError: memory is short.
        """
        try:
            image = self.load()
        except MemoryError as error:
            raise WaveganError(f"not enough memory to decode {self.name}; try again with fewer --workers") from error
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            if isinstance(error, OSError) and error.errno:  # of the file system; Pillow's OSErrors have no number
                raise
            raise BadPictureError.of(self.name, error) from error
        return patches(image, size, self.stride) if self.stride else [center_crop(image, size)]

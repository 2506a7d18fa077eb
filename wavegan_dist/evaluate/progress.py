"""The progress bar of commands that work through a number of images."""

from typing import NoReturn

from tqdm import tqdm


def image_progress_bar(count: int, label: str, *, enabled: bool = True) -> "tqdm[NoReturn]":
    """Make a progress bar of `count` images on stderr. It is shown if stderr is a terminal and `enabled` is true."""
    return tqdm(total=count, unit="img", desc=label, disable=None if enabled else True, leave=False)

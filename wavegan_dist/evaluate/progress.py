"""The progress bar of commands that work through a number of images."""

from typing import NoReturn

from tqdm import tqdm


def image_progress_bar(count: int, label: str, *, enabled: bool = True) -> "tqdm[NoReturn]":
    """Make a progress bar of `count` images, which is shown on stderr only if stderr is a terminal and `enabled` is true.

    `label` is the text before the bar. The caller advances the bar by `update(images)` and closes it, or uses it in `with`.
    """
    return tqdm(total=count, unit="img", desc=label, disable=None if enabled else True, leave=False)

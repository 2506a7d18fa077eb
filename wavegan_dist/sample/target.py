"""The format that `--out` and `--format` ask for, and whether `--out` can be written."""

from pathlib import Path
from typing import Literal

from PIL import Image

from wavegan_dist.errors import UsageError
from wavegan_dist.files import check_folder, is_file_name
from wavegan_dist.sample.walk import ANIMATIONS

Format = Literal["grid", "folder", "shards", "walk"]
VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
ARCHIVES = (".tar", ".tgz", ".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def find_format(out: Path, requested: Format | None) -> Format:
    """Return the format that the name of `out` implies: .png a grid, .gif or .webp a walk, else a folder, or requested shards.

    Args:
        out: value of `--out`; the file or folder need not exist.
        requested: value of `--format`; None if it was not given.

    Raises:
        UsageError: `out` has another extension of pictures, videos or archives, or does not fit the requested format.
    """
    suffix = out.suffix.lower()
    if suffix in VIDEOS:
        raise UsageError(f"--out {out}: there is no video encoder; name a .webp or .gif file, which video tools convert")
    if suffix in ARCHIVES:
        raise UsageError(f"--out {out}: name a folder; --format shards writes tars into it")
    named: Format = "grid" if suffix == ".png" else "walk" if suffix in ANIMATIONS else "folder"
    if named == "folder" and (suffix in Image.registered_extensions() or is_file_name(out)):
        raise UsageError(f"--out {out}: images are written as PNG only; name a .png file for a grid, or a folder")
    if requested is None or requested == named or (requested, named) == ("shards", "folder"):
        return requested or named
    wanted = {"grid": "a .png file", "walk": "a .webp or .gif file"}.get(requested, "a folder, without such an extension")
    raise UsageError(f"--out {out}: --format {requested} needs the name of {wanted}")


def check_out(out: Path, is_folder: bool) -> None:
    """Check that a file can be written to `out` or, if `is_folder` is true, that `out` can become a new folder.

    Raises:
        UsageError: `out` is a broken link, its parent is not a folder that this user may write to or create, `out` is a folder
            where a file must be written, a file where a folder must be written, or a folder that is not empty, is a mount point
            or is the working folder.
    """
    if out.is_symlink() and not out.exists():
        raise UsageError(f"--out {out} is a link that leads nowhere; remove it or choose another name")
    check_folder(out.absolute().parent, f"--out {out}")
    if not is_folder:
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder; name a file, or a folder without {out.suffix} in its name")
        return
    if not out.is_dir():
        if out.exists():
            raise UsageError(f"--out {out} is a file; name a path that ends in .png, or a folder")
        return
    if any(out.iterdir()):
        raise UsageError(f"--out {out} already holds files; remove it or choose another folder")
    if out.is_mount() or out.samefile(Path.cwd()):
        raise UsageError(f"--out {out} is a mount point or the working folder; name a new folder in it")

"""YAML files that are found by name: profiles and hardware files, in `./launchers` and in the package's own launchers."""

from pathlib import Path

from wavegan_dist.errors import UsageError

PACKAGED = Path(__file__).parent / "launchers"


def find_launcher_file(folder: str, what: str, name: str) -> Path:
    """Return the path of a YAML file that the user gave by path or by name; an existing path takes precedence over a name.

    Args:
        folder: the subfolder to search by name ("slurm", "hardware"), first in `./launchers`, then in the package.
        what: what the file is called in the error message.
        name: the path of a file, or the name of one in these folders, with or without `.yaml`.

    Raises:
        UsageError: there is no such file; the message lists the names that exist in these folders.
    """
    if Path(name).is_file():
        return Path(name)
    folders = (Path("launchers") / folder, PACKAGED / folder)
    for path in (parent / f"{name.removesuffix('.yaml')}.yaml" for parent in folders):
        if path.is_file():
            return path
    known = sorted({path.stem for parent in folders for path in parent.glob("*.yaml")})
    raise UsageError(f"no {what} is called '{name}'; there are {', '.join(known)}, or give the path of a YAML file")

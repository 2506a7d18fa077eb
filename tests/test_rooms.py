"""The import rule of docs/design.md: wavelet <- model <- train; data <- train; evaluate uses wavelet, model, data."""

import ast
from pathlib import Path

import pytest

import wavegan_dist

HOUSE = Path(wavegan_dist.__file__).parent
FOUNDATION = {"errors", "files", "counted", "config", "images", "processes", "provenance"}
MAY_USE = {
    "wavelet": FOUNDATION,
    "model": FOUNDATION | {"wavelet"},
    "data": FOUNDATION | {"wavelet"},
    "tracking": FOUNDATION,
    "train": FOUNDATION | {"wavelet", "model", "data", "tracking"},
    "evaluate": FOUNDATION | {"wavelet", "model", "data"},
    "plan": FOUNDATION | {"model", "data"},
    "cluster": FOUNDATION | {"tracking"},  # train and evaluate through their command lines only
    "doctor": FOUNDATION | {"wavelet"},
    "cli": FOUNDATION | {"doctor", "wavelet", "model", "data", "tracking", "train", "evaluate", "cluster", "plan"},
    "__main__": {"cli"},
    "__init__": set(),
    **dict.fromkeys(FOUNDATION, FOUNDATION),
}


def room(file: Path) -> str:
    return file.relative_to(HOUSE).with_suffix("").parts[0]


def imported_rooms(file: Path) -> set[str]:
    """Rooms of this package that a file imports, also inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the room"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("wavegan_dist.")} - {"__version__"}


@pytest.mark.parametrize("file", sorted(HOUSE.rglob("*.py")), ids=lambda file: str(file.relative_to(HOUSE)))
def test_no_room_imports_a_higher_one(file):
    own = room(file)
    assert imported_rooms(file) - {own} <= MAY_USE[own]


def test_other_rooms_use_only_what_the_transform_gives_out():
    for file in HOUSE.rglob("*.py"):
        if room(file) != "wavelet":
            assert "wavegan_dist.wavelet." not in file.read_text(), f"{file} reaches into the wavelet room"

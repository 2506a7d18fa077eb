"""The import rule of docs/design.md: wavelet <- model <- train; data <- train; evaluate uses wavelet, model, data."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import wavegan_dist

HOUSE = Path(wavegan_dist.__file__).parent
TESTS = Path(__file__).parent
FOUNDATION = {
    "errors",
    "files",
    "html_page",
    "counted",
    "classes",
    "config",
    "devices",
    "evaluation_result",
    "images",
    "launcher",
    "launcher_files",
    "log",
    "markdown",
    "processes",
    "provenance",
    "redact",
    "rendezvous",
    "run_folder",
    "work_folder",
}
MAY_USE = {
    "wavelet": FOUNDATION,
    "model": FOUNDATION | {"wavelet"},
    "data": FOUNDATION | {"wavelet"},
    "tracking": FOUNDATION,
    "train": FOUNDATION | {"wavelet", "model", "data", "tracking"},
    "evaluate": FOUNDATION | {"wavelet", "model", "data", "tracking"},
    "compare": FOUNDATION | {"model", "evaluate"},
    "explain": FOUNDATION | {"wavelet", "model", "data", "train", "evaluate"},
    "export": FOUNDATION | {"wavelet", "model"},
    "sample": FOUNDATION | {"model", "data", "evaluate"},
    "gallery": FOUNDATION | {"model", "data", "evaluate"},
    "plan": FOUNDATION | {"model", "data", "train"},
    "cluster": FOUNDATION | {"tracking"},  # train and evaluate through their command lines only
    "doctor": FOUNDATION | {"wavelet"},
    "cli": FOUNDATION
    | {"doctor", "wavelet", "model", "data", "tracking", "train", "evaluate", "sample", "compare", "explain", "export"}
    | {"gallery", "cluster", "plan"},
    "__main__": {"cli"},
    "__init__": {"errors", "evaluation_result", "model", "wavelet"},  # the public API, imported when it is used
    **dict.fromkeys(FOUNDATION, FOUNDATION),
}


def room(file: Path) -> str:
    return file.relative_to(HOUSE).with_suffix("").parts[0]


def imports(file: Path) -> set[str]:
    """Dotted names of this package that a file imports, also inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the room"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("wavegan_dist.")}


def imported_rooms(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file)} - {"__version__"}


def module(file: Path) -> str:
    return ".".join(("wavegan_dist", *file.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")


def imported_modules(file: Path, modules: set[str]) -> set[str]:
    """Modules of this package that a file imports: of `a.b.c` the longest prefix that is a module."""
    return {name if name in modules else name.rpartition(".")[0] for name in imports(file)} - {module(file), "wavegan_dist"}


@pytest.mark.parametrize("file", sorted(HOUSE.rglob("*.py")), ids=lambda file: str(file.relative_to(HOUSE)))
def test_no_room_imports_a_higher_one(file: Path) -> None:
    own = room(file)
    assert imported_rooms(file) - {own} <= MAY_USE[own]


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module(file) for file in HOUSE.rglob("*.py")}
    graph = {module(file): imported_modules(file, modules) for file in HOUSE.rglob("*.py")}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_other_rooms_use_only_what_the_transform_gives_out() -> None:
    for file in HOUSE.rglob("*.py"):
        if room(file) != "wavelet":
            assert "wavegan_dist.wavelet." not in file.read_text(), f"{file} reaches into the wavelet room"


def test_no_test_imports_a_test_module_or_a_conftest() -> None:
    for file in TESTS.rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [f"{getattr(node, 'module', '')}.{alias.name}" for node in nodes for alias in node.names]
        parts = {part for name in names for part in name.split(".")}
        assert not {part for part in parts if part == "conftest" or part.startswith("test_")}, f"{file}: import from helpers"

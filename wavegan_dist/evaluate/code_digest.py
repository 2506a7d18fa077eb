"""The digest of the source code that metrics depend on."""

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path

import wavegan_dist

# Evaluation imports the packages wavelet, model and data (tests/test_rooms.py). Of the top-level modules, four affect values
# of metrics: counted.py draws latents and subsets, classes.py draws classes, devices.py forbids TF32, images.py rounds pixels.
SOURCES = (
    "classes.py",
    "counted.py",
    "devices.py",
    "images.py",
    "evaluate/*.py",
    "model/**/*.py",
    "data/**/*.py",
    "wavelet/**/*.py",
    "wavelet/**/*.cpp",
    "wavelet/**/*.h",
)
EXCEPT = {"model/card.py"}  # it writes the card of a published generator and affects no metric


@cache
def code_digest() -> str:
    """Return the sha256, in hex, of the names and statements of all source files in `SOURCES` without those in `EXCEPT`.

    Docstrings, comments and empty lines of Python files do not count. Two results with equal digests were computed by the same
    code, whatever else has changed between their commits.
    """
    return digest_of(Path(wavegan_dist.__file__).parent)


def digest_of(package: Path) -> str:
    """Return the digest of a copy of this package: sha256, in hex, of its files in `SOURCES` without those in `EXCEPT`.

    Args:
        package: the folder `wavegan_dist` of the copy. Names of files count relative to it.
    """
    digest = hashlib.sha256()
    files = {path for pattern in SOURCES for path in package.glob(pattern)}
    for path in sorted(files - {package / name for name in EXCEPT}):
        content = _statements(path.read_text()).encode() if path.suffix == ".py" else path.read_bytes()
        digest.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _statements(source: str) -> str:
    """Return Python source without docstrings, comments and empty lines, the same text in every version of Python."""
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())

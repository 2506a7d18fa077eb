"""The package itself: what it gives out, and that importing it costs nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image

import wavegan_dist
from tests.helpers import ROOT
from tests.model.snapshots import write_snapshot
from wavegan_dist.model.generator import WaveletGenerator


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, wavegan_dist; assert 'sample' not in dir(wavegan_dist); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "huggingface_hub", "pydantic", "safetensors", "typing_extensions"} & set(modules)


def test_every_public_name_is_there_and_no_other() -> None:
    names: dict[str, object] = {}
    exec("from wavegan_dist import *", names)
    assert {*names, "__version__"} - {"__builtins__"} == set(wavegan_dist.__all__)
    assert set(wavegan_dist.__all__) <= set(dir(wavegan_dist))
    assert names["WaveletGenerator"] is WaveletGenerator
    assert wavegan_dist.__all__ == sorted(wavegan_dist.__all__)


def test_an_unknown_name_is_the_usual_error() -> None:
    with pytest.raises(AttributeError, match="module 'wavegan_dist' has no attribute 'WaveletGenerators'"):
        wavegan_dist.WaveletGenerators  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from wavegan_dist import WaveletGenerators")


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one interpreter, top to bottom, without the Hub: tests/model/test_hub.py pushes."""
    pushed: list[set[str]] = []

    def create_repo(self: HfApi, repo_id: str, **_: object) -> object:
        return type("Repository", (), {"repo_id": repo_id})

    def upload_folder(self: HfApi, *, folder_path: Path, **_: object) -> str:
        pushed.append({path.name for path in folder_path.iterdir()})
        return "url"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.chdir(tmp_path)
    write_snapshot(tmp_path / "runs/demo/snapshots/kimg-000144")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert isinstance(names["images"], torch.Tensor)
    assert names["images"].shape == (16, 3, 32, 32)
    assert pushed == [{path.name for path in Path("my-generator").iterdir()}]
    with Image.open("image.png") as picture:
        assert picture.size == (32, 32)


def test_the_documentation_lists_every_public_name() -> None:
    rows = (ROOT / "docs/api.md").read_text().partition("## What is stable")[2]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(wavegan_dist.__all__)

"""How often an evaluation lists the folder of the real images."""

import os
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from wavegan_dist.data import Index
from wavegan_dist.evaluate.real_images import real_statistics
from wavegan_dist.evaluate.spectrum import SpectrumError


def test_the_folder_is_listed_once_for_each_subset(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, listed, scandir = Index.load(data), list[Path](), os.scandir

    def scan(folder: Any) -> Any:
        listed.append(Path(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scan)
    subsets = real_statistics(index, 200, 123, [SpectrumError(32).feature], PartialState())  # in four segments
    assert len(subsets) == 2
    assert listed.count(index.folder) == 2

"""Profiles and hardware files, found by path or by name."""

import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT
from wavegan_dist.errors import UsageError
from wavegan_dist.launcher_files import PACKAGED, find_launcher_file


def test_a_file_of_the_package_is_found_by_name_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_launcher_file("hardware", "hardware file", "h100") == PACKAGED / "hardware" / "h100.yaml"
    assert find_launcher_file("hardware", "hardware file", "h100.yaml") == PACKAGED / "hardware" / "h100.yaml"


def test_the_users_own_launchers_come_first_and_a_path_before_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path("launchers") / "slurm" / "gpu8.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("time: 5\n")
    assert find_launcher_file("slurm", "profile", "gpu8") == own
    Path("gpu8.yaml").write_text("time: 6\n")
    assert find_launcher_file("slurm", "profile", "gpu8.yaml") == Path("gpu8.yaml")


def test_an_unknown_name_is_refused_with_the_names_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no profile is called 'x'; there are gpu1, gpu8, local, local1, or give the path"):
        find_launcher_file("slurm", "profile", "x")


def test_every_launcher_file_is_in_the_wheel_and_in_the_launchers_folder_of_the_checkout():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["wavegan_dist"]
    files = {path for path in PACKAGED.rglob("*") if path.is_file()}
    assert files == {path for pattern in globs for path in PACKAGED.parent.glob(pattern) if path.is_relative_to(PACKAGED)}
    assert files == {path.resolve() for kind in PACKAGED.iterdir() for path in (ROOT / "launchers" / kind.name).iterdir()}

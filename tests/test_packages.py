"""The wheel and the source archive: what they contain, and that the wheel works where nothing else is installed."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import packages
import pytest
from packages import Environment

from tests.helpers import ROOT
from wavegan_dist import __version__
from wavegan_dist.doctor import NEEDS

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CONSTRAINTS = ("--constraint", str(ROOT / "constraints.txt"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    return packages.build(tmp_path_factory.mktemp("dist"))


def share_torch(environment: Environment) -> None:
    """Link the files of PyTorch, of Triton and of their CUDA libraries, which pip would install in minutes."""
    target = next((environment.folder / "lib").glob("python*")) / "site-packages"
    for package in distributions():
        if re.fullmatch(r"torch|triton|(nvidia|cuda)[-_].*", package.name):
            for file in package.files:
                if file.parts[0] != "..":
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    packages.link(Path(file.locate()), target / file)


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Environment:
    """An environment with the wheel and no extra, for this version of Python."""
    environment = packages.create(sys.executable, tmp_path_factory.mktemp("environment"))
    share_torch(environment)
    packages.install(environment, "--no-compile", str(built[0]), *CONSTRAINTS)
    return environment


@pytest.mark.slow
def test_wheel_and_archive_contain_the_files_of_the_package_and_no_other(built) -> None:
    wheel, archive = built
    listed = subprocess.run(["git", "ls-files", "wavegan_dist"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.split())
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tracked
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    files = {name for name in files if ".egg-info/" not in name}
    assert files == tracked | {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


@pytest.mark.slow
def test_the_wheel_works_without_extras_and_without_a_compiler(environment) -> None:
    packages.check_base(environment)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [*packages.EXTRAS, *packages.STORES])
def test_every_extra_resolves_alone(built, environment, extra) -> None:
    environment.pip("install", "--dry-run", "--quiet", f"{built[0]}[{extra}]", *CONSTRAINTS)


def test_every_extra_has_commands_that_packages_py_runs_where_it_alone_is_installed() -> None:
    assert {*packages.EXTRAS, *packages.STORES, "dev"} == EXTRAS.keys()


@pytest.mark.parametrize("extra", packages.EXTRAS)
def test_doctor_looks_for_every_package_of_an_extra(extra) -> None:
    installs = packages_distributions()
    looked_for = {name for need in NEEDS if need.extra == extra for module in need.modules for name in installs[module]}
    required = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in EXTRAS[extra]}
    assert {name.replace("_", "-") for name in looked_for} == required


def test_doctor_names_every_command_that_plots() -> None:
    (plots,) = [need.command for need in NEEDS if need.modules == ("matplotlib",)]
    assert all(command in plots for command in ("evaluate", "compare", "explain"))


def test_the_citation_has_the_version_of_the_package() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()

"""The shards of these tests, written without the CPU's kernels: a GPU machine would take half a minute to compile them."""

from pathlib import Path

import pytest
from bench_common import write_smooth_noise

from wavegan_dist.data import write_shards
from wavegan_dist.wavelet.choice import VARIABLE, reset


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards with 512 patches of smooth noise, 32 px."""
    folder = tmp_path_factory.mktemp("shards")
    write_smooth_noise(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "reference")
        reset()
        write_shards(str(folder / "images"), folder / "set", 32, patches=True)
    reset()
    return folder / "set"

"""The version of a remote file, from servers that do or do not answer HEAD."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.servers import WebServer, serve
from wavegan_dist.data import remote
from wavegan_dist.errors import WaveganError


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(remote, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    (tmp_path / "0.tar").write_bytes(b"content")
    with serve(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        ([], {"HEAD 0.tar": 1}),
        (["503", "429"], {"HEAD 0.tar": 3}),
        (["405"], {"HEAD 0.tar": 1, "GET 0.tar": 1}),
        (["501"], {"HEAD 0.tar": 1, "GET 0.tar": 1}),
        (["503", "501", "503"], {"HEAD 0.tar": 3, "GET 0.tar": 1}),
    ],
    ids=str,
)
def test_a_server_without_head_is_asked_by_get(web: WebServer, faults: list[str], requests: dict[str, int]) -> None:
    version = remote.read(f"{web.url}/0.tar", lambda answer: answer.version)
    web.requests.clear()
    web.faults = {"0.tar": faults}
    assert remote.version(f"{web.url}/0.tar") == version
    assert web.requests == requests


def test_a_file_that_is_not_there_has_no_version(web: WebServer) -> None:
    with pytest.raises(WaveganError, match="404"):
        remote.version(f"{web.url}/1.tar")

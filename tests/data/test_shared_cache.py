"""A cache of remote shards in a sticky folder: a user can read the files of other users, but neither lock nor delete them."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wavegan_dist.data.storage import Storage

SIZE = 1000  # bytes of each file
FILES = {f"shard-{number}.tar": bytes([number]) * SIZE for number in range(3)}


def cached_name(name: str) -> str:
    return f"{hashlib.sha256(FILES[name]).hexdigest()[:16]}-{name}"


def get(storage: Storage, name: str) -> Path:
    return storage.local(name, SIZE, hashlib.sha256(FILES[name]).hexdigest())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def base(tmp_path: Path) -> str:
    """Where the shards are."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return f"pipe:cat '{folder}'/{{file}}"


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The files of another user: what is added to the set can be neither locked, deleted, replaced nor touched."""
    paths = set[Path]()

    def guarded(function: Callable[..., Any], argument: int) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if arguments[argument] in paths:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(arguments[argument]))
            return function(*arguments, **options)

        return call

    for name, argument in (("open", 0), ("unlink", 0), ("utime", 0), ("rename", 1)):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), argument))
    return paths


@pytest.mark.parametrize("name", ["shard-0.tar", "shard-1.tar"])
def test_an_unfinished_download_of_another_user_is_no_obstacle(cache: Path, base: str, foreign: set[Path], name: str) -> None:
    part = cache / f".{cached_name(name)}.part"
    part.write_bytes(b"unfinished")
    foreign.add(part)
    assert get(Storage(base, cache, 9 * SIZE), "shard-0.tar").read_bytes() == FILES["shard-0.tar"]
    assert part.read_bytes() == b"unfinished"
    assert sorted(path.name for path in cache.iterdir()) == sorted([part.name, cached_name("shard-0.tar")])


def test_room_is_made_of_own_files_only(cache: Path, base: str, foreign: set[Path]) -> None:
    storage = Storage(base, cache, 2 * SIZE)
    for age, name in ((7200, "shard-0.tar"), (3600, "shard-1.tar")):
        path = get(storage, name)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    foreign.add(cache / cached_name("shard-0.tar"))
    get(storage, "shard-2.tar")
    assert sorted(path.name for path in cache.iterdir()) == sorted(map(cached_name, ("shard-0.tar", "shard-2.tar")))


def test_a_file_that_another_user_has_downloaded_meanwhile_is_used(cache: Path, foreign: set[Path], base: str) -> None:
    path = cache / cached_name("shard-0.tar")
    foreign.add(path)
    command = base.removeprefix("pipe:")
    assert get(Storage(f"pipe:{command}; {command} > '{path}'", cache, 9 * SIZE), "shard-0.tar") == path
    assert list(cache.iterdir()) == [path]

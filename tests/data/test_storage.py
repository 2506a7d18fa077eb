import errno
import fcntl
import hashlib
import http.server
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest

from tests.data.servers import without_package
from wavegan_dist.data import Index, remote
from wavegan_dist.data.storage import Storage, _remove_stale, locate
from wavegan_dist.errors import UsageError, WaveganError

SIZE = 3_000_000  # bytes of each file; more than two blocks of a download
FILES = {f"shard-{number}.tar": np.random.default_rng(number).bytes(SIZE) for number in range(5)}
ROOM = 10 * SIZE


def digest(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


def get(storage: Storage, name: str) -> Path:
    return storage.local(name, SIZE, digest(name))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves FILES. `spoil` lists, by file name, how to spoil the first responses."""

    requests: ClassVar[Counter[str]] = Counter()
    spoil: ClassVar[dict[str, list[str]]] = {}

    def do_GET(self) -> None:
        name = self.path.removeprefix("/set/")
        self.requests[name] += 1
        kind = self.spoil.get(name, []).pop(0) if self.spoil.get(name) else "whole"
        if name not in FILES or kind.isdigit():
            return self.send_error(int(kind) if kind.isdigit() else 404)
        content = FILES[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "slow":
            time.sleep(0.3)
        self.wfile.write(content[: SIZE // 2] if kind == "cut" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """URL of the dataset."""
    Handler.requests, Handler.spoil = Counter(), {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/set"
        served.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the dataset."""
    path = tmp_path / "a set"
    path.mkdir()
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_DELAYS", (0.0, 0.01, 0.01))


def cached(cache: Path) -> list[str]:
    """Names of all files in the cache, including hidden ones."""
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.mark.parametrize(
    ("location", "base", "name"),
    [
        ("/data/set", "/data/set", "index.json"),
        ("/data/set/index.json", "/data/set", "index.json"),
        ("/data/set/other.json", "/data/set", "other.json"),
        (Path("/data/set"), "/data/set", "index.json"),
        ("set", "HERE/set", "index.json"),
        ("index.json", "HERE", "index.json"),
        ("/index.json", "/", "index.json"),
        ("http://host/a/index.json", "http://host/a", "index.json"),
        ("s3://bucket/a", "s3://bucket/a", "index.json"),
        ("pipe:curl -s http://host/{file}", "pipe:curl -s http://host/{file}", "index.json"),
    ],
)
def test_a_set_is_located_by_its_folder_or_its_index(location: str | Path, base: str, name: str, tmp_path: Path) -> None:
    storage, found = locate(location, tmp_path, ROOM)
    assert (storage.base, found) == (base.replace("HERE", str(Path.cwd())), name)


def test_a_local_file_is_used_where_it_is(folder: Path) -> None:
    storage = Storage(str(folder), None, 0)
    assert storage.local("shard-0.tar", SIZE, "0" * 64) == folder / "shard-0.tar"
    assert storage.read("shard-0.tar") == FILES["shard-0.tar"]
    with storage.open("shard-0.tar", SIZE, "0" * 64) as file:
        assert os.pread(file.fileno(), 10, 5) == FILES["shard-0.tar"][5:15]
    with pytest.raises(FileNotFoundError):
        storage.open("shard-9.tar", SIZE, "0" * 64)


@pytest.mark.parametrize("kind", ["http", "pipe", "memory", "file"])
def test_a_file_from_elsewhere_is_fetched_once_and_whole(kind: str, server: str, folder: Path, tmp_path: Path) -> None:
    if kind == "memory":
        for name, content in FILES.items():
            fsspec.filesystem("memory").pipe(f"/set/{name}", content)
    bases = {"http": server, "pipe": f"pipe:cat '{folder}'/{{file}}", "memory": "memory://set/", "file": folder.as_uri()}
    storage = Storage(bases[kind].replace("%20", " "), tmp_path / "cache", ROOM)
    assert storage.read("shard-1.tar") == FILES["shard-1.tar"]
    assert cached(tmp_path / "cache") == []
    for _ in range(2):
        for name, content in FILES.items():
            assert get(storage, name).read_bytes() == content
            assert get(storage, name).parent == tmp_path / "cache"
    assert cached(tmp_path / "cache") == sorted(f"{digest(name)[:16]}-{name}" for name in FILES)
    if kind == "http":
        assert Handler.requests == Counter(list(FILES)) + Counter(["shard-1.tar"])


def test_a_file_of_unknown_size_is_checked_by_its_hash(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, ROOM)
    assert storage.local("shard-0.tar", None, digest("shard-0.tar")).read_bytes() == FILES["shard-0.tar"]
    with pytest.raises(WaveganError, match="sha256"):
        storage.local("shard-1.tar", None, digest("shard-0.tar"))


def test_nothing_of_a_failed_try_stays_in_a_file_of_unknown_size(folder: Path, tmp_path: Path) -> None:
    tried = f"'{tmp_path}/tried'"
    base = f"pipe:cd '{folder}'; if [ -e {tried} ]; then cat {{file}}; else touch {tried}; cat {{file}} {{file}}; exit 1; fi"
    path = Storage(base, tmp_path / "cache", ROOM).local("shard-0.tar", None, digest("shard-0.tar"))
    assert path.read_bytes() == FILES["shard-0.tar"]


def test_names_are_taken_literally(folder: Path, tmp_path: Path) -> None:
    name = "it's $(touch pwned) 100%; & co.tar"
    (folder / name).write_bytes(b"x")
    for base in (f"pipe:cat '{folder}'/{{file}}", folder.as_uri().replace("%20", " ")):
        path = Storage(base, tmp_path / "cache", ROOM).local(name, 1, hashlib.sha256(b"x").hexdigest())
        assert path.read_bytes() == b"x"
        path.unlink()


@pytest.mark.parametrize("spoilt", [["cut"], ["503", "cut", "429"], ["500", "500", "500"]], ids=str)
def test_failures_that_may_pass_are_tried_again(server: str, tmp_path: Path, spoilt: list[str]) -> None:
    Handler.spoil = {"shard-0.tar": list(spoilt)}
    assert get(Storage(server, tmp_path, ROOM), "shard-0.tar").read_bytes() == FILES["shard-0.tar"]
    assert Handler.requests["shard-0.tar"] == len(spoilt) + 1


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "down": (["503"] * 9, 4, r"cannot read http://\S+/set/shard-0\.tar \(HTTP 503 Service Unavailable, 4 times\); check"),
    "always cut": (["cut"] * 9, 4, r"shard-0\.tar \(received 1,500,000 of 3,000,000 bytes, 4 times\); check"),
    "gone": (["404"], 1, r"cannot read http://\S+/set/shard-0\.tar \(HTTP 404 Not Found\); check"),
    "forbidden": (["403"], 1, r"\(HTTP 403 Forbidden\); check the address and its read permissions"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_that_stay_are_one_line_and_leave_nothing(server: str, tmp_path: Path, kind: str) -> None:
    spoilt, requests, message = FAILURES[kind]
    Handler.spoil = {"shard-0.tar": list(spoilt)}
    with pytest.raises(WaveganError, match=message) as caught:
        get(Storage(server, tmp_path / "cache", ROOM), "shard-0.tar")
    assert "\n" not in str(caught.value)
    assert Handler.requests["shard-0.tar"] == requests
    assert cached(tmp_path / "cache") == []


def test_nobody_listening_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WaveganError, match=r"cannot read http://127\.0\.0\.1:9/x/i \(URLError: .*refused.*, 4 times\)"):
        Storage("http://127.0.0.1:9/x", tmp_path, ROOM).read("i")


def test_other_bytes_than_the_index_says_are_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path / "cache", ROOM)
    for size, sha256, message in (
        (SIZE, "0" * 64, rf"shard-0\.tar of {server} has the sha256 {digest('shard-0.tar')[:16]}.*, the index says 0000"),
        (
            SIZE - 1,
            digest("shard-0.tar"),
            rf"shard-0\.tar of {server} has 3,000,000 bytes, the index says 2,999,999: it has changed",
        ),
    ):
        Handler.requests.clear()
        with pytest.raises(WaveganError, match=message) as caught:
            storage.local("shard-0.tar", size, sha256)
        assert "\n" not in str(caught.value)
        assert Handler.requests["shard-0.tar"] == 1
        assert cached(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("pipe:echo one >&2; echo 'no such bucket' >&2; exit 3 # {file}", r"\(exit code 3: no such bucket, 4 times\)"),
        ("pipe:exit 4 # {file}", r"\(exit code 4: no error message, 4 times\)"),
        ("memory://nowhere", r"cannot read memory://nowhere/shard-0\.tar \(FileNotFoundError: "),
        ("nosuch://bucket", r"\(ValueError: Protocol not known: nosuch"),
    ],
)
def test_a_store_that_fails_is_one_line_with_its_last_words(tmp_path: Path, base: str, message: str) -> None:
    with pytest.raises(WaveganError, match=message) as caught:
        get(Storage(base, tmp_path / "cache", ROOM), "shard-0.tar")
    assert "\n" not in str(caught.value)
    assert cached(tmp_path / "cache") == []


def test_a_store_whose_package_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "s3fs", "s3")
    message = r"cannot read s3://bucket/set/index\.json \(ImportError: Install s3fs .*\); pip install s3fs$"
    with pytest.raises(WaveganError, match=message) as caught:
        Index.load("s3://bucket/set", tmp_path / "cache", ROOM)
    assert "\n" not in str(caught.value)


def test_a_pipe_that_prints_without_end_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(WaveganError, match="has more bytes than"):
        get(Storage("pipe:yes | cat # {file}", tmp_path, ROOM), "shard-0.tar")


def test_a_base_that_cannot_work_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks \{file\}"):
        Storage("pipe:cat x", tmp_path, ROOM)
    with pytest.raises(UsageError, match=r"s3://bucket/set is not on this machine; give a folder for its files"):
        get(Storage("s3://bucket/set", None, ROOM), "shard-0.tar")
    with pytest.raises(UsageError, match=r"shard-0\.tar of 3,000,000 bytes exceeds the cache limit, 5 bytes;"):
        get(Storage("memory://set", tmp_path, 5), "shard-0.tar")


def test_a_cache_that_cannot_be_written_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WaveganError, match=r"cannot keep shard-0\.tar in the cache .*file: .*; free space or move the cache"):
        get(Storage(server, tmp_path / "file", ROOM), "shard-0.tar")


def test_a_cached_file_that_lost_bytes_is_fetched_again(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, ROOM)
    os.truncate(get(storage, "shard-0.tar"), 100)
    assert get(storage, "shard-0.tar").read_bytes() == FILES["shard-0.tar"]


def fetch_all(storage: Storage, names: list[str]) -> list[bytes]:
    return [get(storage, name).read_bytes() for name in names]


def test_processes_that_ask_at_once_fetch_each_file_once(server: str, tmp_path: Path) -> None:
    Handler.spoil = {name: ["slow"] for name in FILES}
    storage, names = Storage(server, tmp_path / "cache", ROOM), sorted(FILES)
    orders = [names[number:] + names[:number] for number in (0, 0, 1, 3)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        contents = pool.map(partial(fetch_all, storage), orders, chunksize=1)
    assert contents == [[FILES[name] for name in order] for order in orders]
    assert Handler.requests == Counter(list(FILES))
    assert len(cached(tmp_path / "cache")) == len(FILES)


def test_threads_that_ask_at_once_fetch_a_file_once(server: str, tmp_path: Path) -> None:
    Handler.spoil = {"shard-0.tar": ["slow"]}
    storage = Storage(server, tmp_path, ROOM)
    threads = [threading.Thread(target=get, args=(storage, "shard-0.tar")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Handler.requests == Counter(["shard-0.tar"])


def age(cache: Path) -> None:
    """Make all files of the cache an hour older."""
    for path in cache.iterdir():
        modified = path.stat().st_mtime_ns - 3600 * 10**9
        os.utime(path, ns=(modified, modified))


def test_what_was_asked_for_longest_ago_makes_room(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, 3 * SIZE)
    for name in ("shard-0.tar", "shard-1.tar", "shard-2.tar", "shard-0.tar", "shard-3.tar"):
        get(storage, name)
        age(tmp_path)
    assert {name[17:] for name in cached(tmp_path)} == {"shard-0.tar", "shard-2.tar", "shard-3.tar"}


def test_what_was_handed_out_just_now_stays_until_later(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, 2 * SIZE)
    for name in FILES:
        get(storage, name)
    assert len(cached(tmp_path)) == 5
    get(storage, "shard-0.tar").unlink()
    age(tmp_path)
    get(storage, "shard-0.tar")
    assert len(cached(tmp_path)) == 2


def test_an_open_file_can_be_read_after_it_made_room(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, SIZE)
    with storage.open("shard-0.tar", SIZE, digest("shard-0.tar")) as file:
        age(tmp_path)
        get(storage, "shard-1.tar")
        assert len(cached(tmp_path)) == 1
        assert file.read() == FILES["shard-0.tar"]


def churn(storage: Storage, seed: int) -> int:
    """Read random files while other processes do the same; return the largest size of the cache in bytes."""
    assert storage.cache
    draws, largest = np.random.default_rng(seed), 0
    for number in draws.integers(0, 5, 20):
        name = f"shard-{number}.tar"
        with storage.open(name, SIZE, digest(name)) as file:
            assert os.pread(file.fileno(), SIZE, 0) == FILES[name]
        largest = max(largest, sum(len(FILES[name[17:]]) for name in cached(storage.cache) if not name.startswith(".")))
    return largest


def test_processes_in_a_cache_too_small_for_all_never_read_a_broken_file_and_keep_the_bound(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegan_dist.data.storage.GRACE", 0.0)
    storage = Storage(f"pipe:cat '{folder}'/{{file}}", tmp_path / "cache", 2 * SIZE)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        largest = pool.map(partial(churn, storage), range(3), chunksize=1)
    assert max(largest) <= 4 * SIZE  # the limit, and two downloads of other processes


def test_room_is_made_of_nothing_but_what_the_cache_made(server: str, tmp_path: Path) -> None:
    others = ["thesis.tar", ".hidden.part", "my-other-shards1-0.tar", ".my-other-shards1-0.tar.part"]
    for name in others:
        (tmp_path / name).write_bytes(bytes(SIZE))
    storage = Storage(server, tmp_path, SIZE)
    for name in FILES:
        get(storage, name)
        age(tmp_path)
    assert set(others) < set(cached(tmp_path))
    assert len(cached(tmp_path)) == len(others) + 1


def test_kill_in_mid_download_leaves_no_broken_file_and_the_next_process_cleans_up(folder: Path, tmp_path: Path) -> None:
    cache, started = tmp_path / "cache", tmp_path / "started"
    slow = f"pipe:head -c 1500000 '{folder}'/{{file}}; touch '{started}'; sleep 5"
    process = multiprocessing.get_context("fork").Process(target=get, args=(Storage(slow, cache, ROOM), "shard-0.tar"))
    process.start()
    while not started.exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert cached(cache) == [f".{digest('shard-0.tar')[:16]}-shard-0.tar.part"]
    storage = Storage(f"pipe:cat '{folder}'/{{file}}", cache, ROOM)
    get(storage, "shard-1.tar")
    assert cached(cache) == [f"{digest('shard-1.tar')[:16]}-shard-1.tar"]
    assert get(storage, "shard-0.tar").read_bytes() == FILES["shard-0.tar"]


def test_what_a_killed_process_left_is_taken_over(folder: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / f".{digest('shard-0.tar')[:16]}-shard-0.tar.part"
    unfinished.write_bytes(bytes(2 * SIZE))
    storage = Storage(f"pipe:cat '{folder}'/{{file}}", tmp_path, ROOM)
    assert get(storage, "shard-0.tar").read_bytes() == FILES["shard-0.tar"]
    assert not unfinished.exists()


def test_room_is_made_after_the_clock_was_set_back(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(server, tmp_path, 2 * SIZE)
    now = time.time()
    for number, name in enumerate(FILES):
        get(storage, name)
        monkeypatch.setattr(time, "time", lambda number=number: now - 86400 * number)
    assert len(cached(tmp_path)) == 2


def test_a_file_that_is_no_index_is_refused_before_it_fills_the_memory_or_the_disk(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegan_dist.data.storage.LARGEST_READ", SIZE - 1)
    with pytest.raises(WaveganError, match="has more than 2,999,999 bytes, which is no index"):
        Storage(server).read("shard-0.tar")
    with pytest.raises(WaveganError, match="has more than the 1,000 bytes of the cache; raise the limit"):
        Storage(server, tmp_path, 1000).local("shard-0.tar", None, digest("shard-0.tar"))
    assert not cached(tmp_path)


def test_a_file_is_on_the_disk_before_it_gets_its_name(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, list[tuple[int, list[str]]]()

    def watch(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, [path.name for path in tmp_path.glob("[!.]*")]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    get(Storage(server, tmp_path, ROOM), "shard-0.tar")
    assert synced == [(SIZE, [])]


@pytest.fixture
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError([errno.ENOSYS, errno.ENOTSUP][descriptor % 2], "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_files_are_fetched_and_room_is_made(server: str, tmp_path: Path) -> None:
    storage = Storage(server, tmp_path, 2 * SIZE)
    for name in FILES:
        assert get(storage, name).read_bytes() == FILES[name]
        age(tmp_path)
    assert len(cached(tmp_path)) == 2
    Handler.spoil = {"shard-0.tar": ["404"]}
    with pytest.raises(WaveganError):
        get(storage, "shard-0.tar")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.parametrize("size", [SIZE, None])
def test_without_locks_downloads_at_once_do_not_disturb_each_other(server: str, tmp_path: Path, size: int | None) -> None:
    Handler.spoil = {name: ["slow"] * 9 for name in FILES}
    storage = Storage(server, tmp_path, ROOM)

    def fetch(number: int) -> bool:
        name = sorted(FILES)[number % 3]
        return storage.local(name, size, digest(name)).read_bytes() == FILES[name]

    with ThreadPoolExecutor(9) as pool:
        assert all(pool.map(fetch, range(9)))
    assert sorted(name[17:] for name in cached(tmp_path)) == sorted(FILES)[:3]


@pytest.mark.usefixtures("_no_locks")
def test_a_name_as_long_as_file_systems_allow_is_kept(tmp_path: Path) -> None:
    for name in ("é" * 125 + "0.tar", "é" * 125 + "1.tar"):
        path = Storage("pipe:printf '%s' {file}", tmp_path, ROOM).local(name, 255, hashlib.sha256(name.encode()).hexdigest())
        assert path.read_bytes() == name.encode()
    assert len(cached(tmp_path)) == 2


def test_an_unfinished_download_that_another_process_ends_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    part = tmp_path / ".0123456789abcdef-shard-0.tar.part"
    _remove_stale(part)
    assert not part.exists()


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_what_a_killed_process_left_is_removed_after_an_hour(server: str, tmp_path: Path) -> None:
    names = [f".{digest(name)[:16]}-{name}.part" for name in ("shard-1.tar", "shard-2.tar")]
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / names[0], (time.time() - 3601,) * 2)
    get(Storage(server, tmp_path, ROOM), "shard-0.tar")
    assert cached(tmp_path) == sorted([names[1], f"{digest('shard-0.tar')[:16]}-shard-0.tar"])


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_cached_files_of_another_user_are_used(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    storage = Storage(server, tmp_path, ROOM)
    get(storage, "shard-0.tar")

    def fail(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "utime", fail)
    assert get(storage, "shard-0.tar").read_bytes() == FILES["shard-0.tar"]
    assert Handler.requests["shard-0.tar"] == 1

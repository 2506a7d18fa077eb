"""`wavegan shards index URLS --out DIR`: tars that stay where they are, on real servers."""

import io
import json
import os
import re
import shutil
import signal
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
import s3fs
import torch
import webdataset
from PIL import Image

from tests.data.servers import S3_VARIABLES, WebServer, serve, serve_s3, without_package
from tests.helpers import PATIENCE, Command, refused, running, wait_for
from wavegan_dist.cli import main
from wavegan_dist.data import (
    DataError,
    Index,
    index_remote_shards,
    index_shards,
    info,
    info_table,
    read,
    remote,
    save_sheet,
    training_batches,
    verify_shards,
)
from wavegan_dist.errors import UsageError, WaveganError

TARS = "shard-{000000..000007}.tar"
NAMES = [f"shard-{number:06d}.tar" for number in range(8)]
ROOM = 2**30


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_DELAYS", (0.0, 0.01, 0.01))


@pytest.fixture
def tars(numbered: Index) -> Path:
    """Folder of 8 tars with 12 images each, indexed here."""
    return numbered.folder


@pytest.fixture
def web(tars: Path) -> Iterator[WebServer]:
    with serve(tars) as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serve_s3() as url:
        yield url


def use_s3(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**S3_VARIABLES, "AWS_ENDPOINT_URL": url}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3: str, tars: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a folder in a bucket that holds the tars."""
    use_s3(s3, monkeypatch)
    store = fsspec.filesystem("s3")
    if not store.exists("bucket"):
        store.mkdir("bucket")
    for name in NAMES:
        store.pipe(f"bucket/set/{name}", (tars / name).read_bytes())
    return "s3://bucket/set"


def place(kind: str, request: pytest.FixtureRequest) -> str:
    """Pattern of the tars in a store of this kind."""
    tars: Path = request.getfixturevalue("tars")
    match kind:
        case "http":
            return f"{request.getfixturevalue('web').url}/{TARS}"
        case "s3":
            return f"{request.getfixturevalue('bucket')}/{TARS}"
        case "memory":
            for name in NAMES:
                fsspec.filesystem("memory").pipe(f"/set/{name}", (tars / name).read_bytes())
            return f"memory://set/{TARS}"
    return f"pipe:cat {tars}/{TARS}"


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["http", "s3", "memory", "pipe"])
def test_the_index_is_that_of_the_same_tars_here(
    kind: str, workers: int, request: pytest.FixtureRequest, tars: Path, tmp_path: Path
) -> None:
    here = index_shards(tars)
    there = index_remote_shards(place(kind, request), tmp_path / "index", workers=workers)
    assert there.digest == here.digest
    assert (there.members == here.members).all()
    assert there.content() == {**here.content(), "source": there.source}
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["index.json", "members.npy"]
    assert not (tmp_path / ".index.partial").exists()
    assert verify_shards(tmp_path / "index", workers=workers) == []
    if kind == "http":
        web: WebServer = request.getfixturevalue("web")
        assert web.requests == {f"GET {name}": 2 for name in NAMES}  # indexed, verified


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["http", "s3", "pipe"])
def test_training_sees_the_same_batches_bit_for_bit(
    kind: str, workers: int, request: pytest.FixtureRequest, tars: Path, tmp_path: Path
) -> None:
    index_remote_shards(place(kind, request), tmp_path / "index")
    there = Index.load(tmp_path / "index", tmp_path / "cache", ROOM)
    streams = [
        training_batches(index, batch_size=8, seed=3, start_nimg=40, rank=0, world_size=1, workers=workers, labels=True)
        for index in (Index.load(tars), there)
    ]
    for here, elsewhere in islice(zip(*streams, strict=True), 24):
        assert torch.equal(here.images, elsewhere.images)
        assert torch.equal(here.labels, elsewhere.labels)
    for stream in streams:
        stream.close()
    assert len(list((tmp_path / "cache").iterdir())) == 8


@pytest.mark.slow
def test_a_run_on_tars_in_s3_equals_one_on_the_same_tars_here(
    bucket: str, s3: str, tars: Path, config: Path, wavegan_with: Command, tmp_path: Path
) -> None:
    variables = {**S3_VARIABLES, "AWS_ENDPOINT_URL": s3}
    outcome = wavegan_with(variables, "shards", "index", f"{bucket}/{TARS}", "--out", tmp_path / "index", "--workers", 2)
    assert outcome.returncode == 0, outcome.stderr
    for name, index in (("here", tars), ("there", tmp_path / "index")):
        settings = (f"data.index={index}", f"data.cache={tmp_path}/cache", "data.workers=1", "train.snapshot_kimg=9")
        outcome = wavegan_with(variables, "train", "--config", config, "--run-dir", tmp_path / name, *settings)
        assert outcome.returncode == 0, outcome.stderr
    losses = [
        [{key: value for key, value in json.loads(line).items() if key.startswith("loss/")} for line in lines]
        for lines in ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("here", "there"))
    ]
    assert losses[0] == losses[1] != []


def image(number: int, kind: str = "JPEG", size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (number, 255 - number, 7)).save(buffer, kind)
    return buffer.getvalue()


def test_the_output_of_img2dataset_is_indexed_as_it_is(
    web: WebServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in range(3):  # named and written as by img2dataset's WebDatasetSampleWriter
        with webdataset.TarWriter(str(web.folder / f"{shard:05d}.tar")) as writer:
            for number in range(4):
                key, texts = f"{shard:05d}{number:04d}", {"txt": "a caption", "json": json.dumps({"status": "success"})}
                writer.write({"__key__": key, "jpg": image(number), **texts})
        (web.folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (web.folder / f"{shard:05d}_stats.json").write_text("{}")
    command = ["shards", "index", f"{web.url}/{{00000..00002}}.tar", "--out", str(tmp_path / "index"), "--workers", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/index: 12 images of 64 px in 3 shards" in printed
    assert f"12 beside an image of the same key (.json), such as 000000000.json in {web.url}/00000.tar" in printed
    assert main(["shards", "info", str(tmp_path / "index")]) == 0
    assert f"shards: {web.url}/{{file}}" in capsys.readouterr().out
    assert Index.load(tmp_path / "index").encoding == "jpg"


def test_the_names_of_classes_are_kept_and_the_index_is_replaced(web: WebServer, tmp_path: Path) -> None:
    index = index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    index.model_copy(update={"classes": ["all"]}).save(tmp_path / "index")
    assert index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index").classes == ["all"]
    assert index_remote_shards(f"{web.url}/shard-{{000000..000006}}.tar", tmp_path / "index").classes == []


@pytest.mark.parametrize("workers", [1, 2])
def test_images_are_chosen_from_tars_elsewhere_as_from_tars_here(tmp_path: Path, workers: int) -> None:
    folder, keys, names = tmp_path / "set", tmp_path / "keys.txt", tmp_path / "names.txt"
    folder.mkdir()
    for first in range(0, 30, 5):
        with webdataset.TarWriter(str(folder / f"{first // 10}-{first % 10 // 5}.tar")) as writer:
            for number in range(first, first + 5):
                writer.write({"__key__": f"im{number}", "png": image(8 * number, "PNG", 32), "cls": number % 3})
    keys.write_text("\n".join(f"im{number}" for number in range(12)))
    names.write_text("ant\nbee\ncat\n")
    choices: list[dict[str, Any]] = [{"classes": "cat,0"}, {"keys": keys}, {"classes": "bee", "keys": keys}, {}]
    for choice in choices:
        here = index_shards(folder, class_names=names, **choice)
        with serve(folder) as web:
            pattern = f"{web.url}/{{0..2}}-{{0,1}}.tar"
            there = index_remote_shards(pattern, tmp_path / "out", class_names=names, workers=workers, **choice)
            assert verify_shards(tmp_path / "out") == []
        assert there.digest == here.digest
        assert (there.members == here.members).all()
        assert there.band_std == here.band_std
    with serve(folder) as web, pytest.raises(UsageError, match="there is no class 'cow'"):
        index_remote_shards(f"{web.url}/0-{{0,1}}.tar", tmp_path / "out", classes="cow")
    assert Index.load(tmp_path / "out") == there


@pytest.mark.parametrize("faults", [["503"], ["cut"], ["503", "cut", "429"], ["chunked"]], ids=str)
def test_what_may_pass_is_tried_again(web: WebServer, tmp_path: Path, faults: list[str]) -> None:
    web.faults = {NAMES[3]: list(faults)}
    assert index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index").digest == Index.load(web.folder).digest
    assert web.requests[f"GET {NAMES[3]}"] == (1 if faults == ["chunked"] else len(faults) + 1)


FAULTS = {
    "503": r"cannot read http://\S+/shard-000003\.tar \(HTTP 503 Service Unavailable, 4 times\); check the address",
    "404": r"cannot read http://\S+/shard-000003\.tar \(HTTP 404 Not Found\); check the address and its read permissions",
    "403": r"cannot read http://\S+/shard-000003\.tar \(HTTP 403 Forbidden\); check the address and its read permissions",
    "cut": r"cannot read http://\S+/shard-000003\.tar \(received [\d,]+ of [\d,]+ bytes, 4 times\); check",
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_stays_is_one_line_and_the_next_command_goes_on(web: WebServer, tmp_path: Path, fault: str, workers: int) -> None:
    web.always = {NAMES[3]: fault}
    with pytest.raises(WaveganError, match=FAULTS[fault]) as caught:
        index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index", workers=workers)
    assert "\n" not in str(caught.value)
    done = [f"GET {name}" for name in NAMES[:3]]
    assert [web.requests[name] for name in done] == [1, 1, 1]
    web.always = {}
    assert index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index").digest == Index.load(web.folder).digest
    assert [web.requests[name] for name in done] == [1, 1, 1]  # not read again
    assert [web.requests[name.replace("GET", "HEAD")] for name in done] == [1, 1, 1]  # but asked for their version
    assert not (tmp_path / ".index.partial").exists()


def test_a_tar_that_changed_before_the_next_command_is_read_again(web: WebServer, tmp_path: Path) -> None:
    web.always = {NAMES[3]: "404"}
    with pytest.raises(WaveganError, match="404"):
        index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    web.always = {NAMES[1]: "whole"}
    shutil.copy(web.folder / NAMES[5], web.folder / NAMES[0])  # of the same size
    index = index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    assert [shard.sha256 for shard in index.shards] == [shard.sha256 for shard in index_shards(web.folder).shards]
    assert [web.requests[f"GET {name}"] for name in NAMES[:3]] == [2, 1, 1]


def test_a_server_that_answers_no_head_is_read_again(web: WebServer, tmp_path: Path) -> None:
    web.always = {NAMES[3]: "404"}
    with pytest.raises(WaveganError, match="404"):
        index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    web.always, web.faults = {}, {NAMES[0]: ["405"]}
    assert index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index").digest == Index.load(web.folder).digest
    assert [web.requests[f"GET {name}"] for name in NAMES[:3]] == [2, 1, 1]


def test_another_pattern_does_not_go_on_with_the_work_of_the_first(web: WebServer, tmp_path: Path) -> None:
    web.always = {NAMES[3]: "404"}
    with pytest.raises(WaveganError, match="404"):
        index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    with pytest.raises(UsageError, match=r"holds an unfinished write with tars .*007\}\.tar, not .*001\}\.tar; finish it with"):
        index_remote_shards(f"{web.url}/shard-{{000000..000001}}.tar", tmp_path / "index")


CHANGES = {
    "size": r"shard-000002\.tar of http://\S+ has [\d,]+ bytes, the index says [\d,]+: it has changed; .* index it again with",
    "bytes": r"shard-000002\.tar of http://\S+ has the sha256 \S+, the index says \S+: it has changed; .* index it again with",
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_tar_that_changed_after_it_was_indexed_is_named(web: WebServer, tmp_path: Path, kind: str) -> None:
    index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    content = (web.folder / NAMES[2]).read_bytes()
    changed = content + bytes(512) if kind == "size" else content[:600] + bytes([content[600] ^ 1]) + content[601:]
    (web.folder / NAMES[2]).write_bytes(changed)
    web.requests.clear()
    index = Index.load(tmp_path / "index", tmp_path / "cache", ROOM)
    with pytest.raises(WaveganError, match=CHANGES[kind]) as caught:
        list(islice(training_batches(index, batch_size=96, seed=0, start_nimg=0, rank=0, world_size=1, workers=0), 1))
    assert "\n" not in str(caught.value)
    assert web.requests[f"GET {NAMES[2]}"] <= 2  # ahead of the reader and by the reader, not once for each of its images
    (problem,) = verify_shards(tmp_path / "index")
    assert problem.startswith(f"{NAMES[2]}: ")
    assert ("bytes, the index says" if kind == "size" else "sha256 differs from the index") in problem


def test_a_tar_that_is_gone_is_named_by_verify(web: WebServer, tmp_path: Path) -> None:
    index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    web.always = {NAMES[2]: "404", NAMES[4]: "403"}
    problems = verify_shards(tmp_path / "index", workers=2)
    assert problems == [
        f"{NAMES[2]}: cannot read {web.url}/{NAMES[2]} (HTTP 404 Not Found); check the address and its read permissions",
        f"{NAMES[4]}: cannot read {web.url}/{NAMES[4]} (HTTP 403 Forbidden); check the address and its read permissions",
    ]


def test_a_wrong_row_of_members_is_found_in_a_remote_tar(web: WebServer, tmp_path: Path) -> None:
    index = index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    rows = np.array(index.members)
    rows[30, 0] += 512
    np.save(tmp_path / "index" / "members.npy", rows)
    assert [problem.split(": ")[0] for problem in verify_shards(tmp_path / "index")] == ["members.npy", NAMES[2]]


BROKEN: dict[str, tuple[bytes, str]] = {
    "page": (b"<html>" + b" " * 600, r"http://\S+/0\.tar is not a tar and begins with b'<html>"),
    "gzip": (b"\x1f\x8b" + bytes(600), r"http://\S+/0\.tar is a gzip file despite its name; decompress it"),
    "empty": (b"", r"http://\S+/0\.tar is not a complete tar \(empty file\); copy or write it again"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_tar_is_named(web: WebServer, tmp_path: Path, kind: str) -> None:
    content, message = BROKEN[kind]
    (web.folder / "0.tar").write_bytes(content)
    with pytest.raises(WaveganError, match=message) as caught:
        index_remote_shards(f"{web.url}/0.tar", tmp_path / "index")
    assert "\n" not in str(caught.value)
    assert web.requests == {"GET 0.tar": 1}


def test_a_tar_that_was_cut_before_it_was_stored_is_named(web: WebServer, tmp_path: Path) -> None:
    os.truncate(web.folder / NAMES[0], 5000)
    with pytest.raises(WaveganError, match=r"http://\S+/shard-000000\.tar is (not a complete tar|damaged or cut short)"):
        index_remote_shards(f"{web.url}/{NAMES[0]}", tmp_path / "index")


def test_images_that_cannot_be_trained_on_are_named_without_reading_on(web: WebServer, tmp_path: Path) -> None:
    with webdataset.TarWriter(str(web.folder / "0.tar")) as writer:
        writer.write({"__key__": "a", "png": image(1, "PNG", 48)})
    with pytest.raises(
        UsageError, match=r"a\.png in http://\S+/0\.tar is 48x48 px, .*; copy the tars to this machine and convert"
    ):
        index_remote_shards(f"{web.url}/0.tar", tmp_path / "index")
    with webdataset.TarWriter(str(web.folder / "0.tar")) as writer:
        writer.write({"__key__": "a", "png": image(1, "PNG", 64)})
    with pytest.raises(UsageError, match=r"images are 64 px in 0\.tar but 32 px in shard-000000\.tar"):
        index_remote_shards(f"{web.url}/{{0,shard-000000}}.tar", tmp_path / "index")


UNREACHABLE = {
    "nobody": ("http://127.0.0.1:9/{0..1}.tar", r"cannot read http://127\.0\.0\.1:9/0\.tar \(URLError: .*refused.*, 4 times\)"),
    "no host": (
        "http://no-such-host.invalid/{0..1}.tar",
        r"cannot read http://no-such-host\.invalid/0\.tar \(URLError: .*, 4 times",
    ),
    "no protocol": (
        "nosuch://bucket/{0..1}.tar",
        r"cannot read nosuch://bucket/0\.tar \(ValueError: Protocol not known: nosuch",
    ),
    "command": ("pipe:echo no bucket >&2; exit 3 # {0..1}.tar", r"\(exit code 3: no bucket, 4 times\); check the command"),
    "half a tar": (
        "pipe:head -c 3000 TARS/shard-00000{0..1}.tar; exit 1",
        r"\(exit code 1: no error message, 4 times\); check the",
    ),
}


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_a_store_that_does_not_answer_is_one_line(tars: Path, tmp_path: Path, kind: str) -> None:
    pattern, message = UNREACHABLE[kind]
    with pytest.raises(WaveganError, match=message) as caught:
        index_remote_shards(pattern.replace("TARS", str(tars)), tmp_path / "index")
    assert "\n" not in str(caught.value)
    assert set(tmp_path.rglob("*.*")) == set(tars.iterdir())  # no file was left


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/{0..1}.tar", "s3fs"), ("gs://bucket/{0..1}.tar", "gcsfs")])
def test_a_missing_package_is_named(url: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, package, url.partition(":")[0])
    with pytest.raises(WaveganError, match=rf"\(ImportError: .*{package}.*\); pip install {package}$") as caught:
        index_remote_shards(url, tmp_path / "index")
    assert "\n" not in str(caught.value)


S3_ERRORS = {
    "no bucket": ("s3://nowhere/{0..1}.tar", r"cannot read s3://nowhere/0\.tar \(FileNotFoundError: "),
    "no tar": (
        "s3://bucket/set/{0..1}.tar",
        r"cannot read s3://bucket/set/0\.tar \(FileNotFoundError: bucket/set/0\.tar\); check",
    ),
}


@pytest.mark.parametrize("kind", S3_ERRORS)
def test_what_s3_does_not_have_is_one_line_at_once(bucket: str, tmp_path: Path, kind: str) -> None:
    pattern, message = S3_ERRORS[kind]
    with pytest.raises(WaveganError, match=message) as caught:
        index_remote_shards(pattern, tmp_path / "index")
    assert "\n" not in str(caught.value)


def test_a_large_object_is_read_in_little_memory(bucket: str) -> None:
    fsspec.filesystem("s3").pipe(f"{bucket}/large", bytes(64 << 20))
    tracemalloc.start()
    try:
        assert remote.read(f"{bucket}/large", lambda answer: sum(map(len, answer.blocks))) == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_an_object_that_was_replaced_in_s3_is_read_again(bucket: str, tars: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("s3")
    store.rm(f"bucket/set/{NAMES[3]}")
    with pytest.raises(WaveganError, match="FileNotFoundError"):
        index_remote_shards(f"{bucket}/{TARS}", tmp_path / "index")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".index.partial").glob("*.npz")}
    assert len(kept) == 3
    store.pipe({f"bucket/set/{NAMES[number]}": (tars / NAMES[4]).read_bytes() for number in (0, 3)})
    index = index_remote_shards(f"{bucket}/{TARS}", tmp_path / "index")
    sha256 = [shard.sha256 for shard in Index.load(tars).shards]
    assert [shard.sha256 for shard in index.shards] == [sha256[number] for number in (4, 1, 2, 4, 4, 5, 6, 7)]


def test_access_that_s3_denies_is_one_line_at_once(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(web.url, monkeypatch)
    web.always = {"locked/0.tar": "403"}
    with pytest.raises(WaveganError, match=r"cannot read s3://locked/0\.tar \(PermissionError: Forbidden\); check the address"):
        index_remote_shards("s3://locked/0.tar", tmp_path / "index")


def test_the_command_says_what_is_missing(wavegan: Command, tars: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:9/{TARS}"
    refused(wavegan("shards", "index", url), "is not on this machine; give a folder for its index with --out DIR")
    refused(wavegan("shards", "index", tars, "--out", tmp_path / "out"), "--out: the index of tars on this machine is written")
    refused(
        wavegan("shards", "index", url, "--out", tars), f"--out: {tars} holds tars, such as shard-000000.tar; choose another"
    )
    refused(wavegan("shards", "index", url, "--out", tars / NAMES[0]), "is not a folder; choose another name")
    refused(wavegan("shards", "index", ""), "the name of the folder is empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbered"]


def test_tars_elsewhere_need_a_cache_to_be_trained_on_but_not_to_be_described(web: WebServer, tmp_path: Path) -> None:
    index = index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    assert info(index)["source"] == f"{web.url}/{{file}}"
    assert info_table(index).startswith("96 RGB images of 32x32 px (png) in 8 shards")
    with pytest.raises(UsageError, match=r"http://\S+ is not on this machine; give a folder for its files"):
        training_batches(index, batch_size=8, seed=0, start_nimg=0, rank=0, world_size=1, workers=0)


def test_a_sheet_of_tars_elsewhere_shows_the_first_images_and_reads_no_more(web: WebServer, tmp_path: Path) -> None:
    index = index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    web.requests.clear()
    save_sheet(index, tmp_path / "sheet.png")
    assert web.requests == {f"GET {name}": 1 for name in NAMES[:6]}
    cells = np.asarray(Image.open(tmp_path / "sheet.png"))[::32, ::32].reshape(-1, 3)
    assert len({cell[0] for cell in cells.tolist()}) == 64
    assert (cells[:, 0].astype(int) + cells[:, 1] == 255).all()


def test_an_index_that_is_itself_elsewhere_points_on(web: WebServer, tmp_path: Path, tars: Path) -> None:
    index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    with serve(tmp_path / "index") as other:
        index = Index.load(other.url, tmp_path / "cache", ROOM)
        assert index.digest == Index.load(tars).digest
        batch = next(training_batches(index, batch_size=8, seed=0, start_nimg=0, rank=0, world_size=1, workers=0))
        assert batch.images.shape == (8, 3, 32, 32)


SOURCES = {
    "password": ("https://alice:word@host/{file}", "source: the address of the shards holds a password"),
    "path": ("/etc", "source: '/etc' is neither a URL nor pipe:COMMAND"),
    "pipe without a file": ("pipe:cat x", "lacks {file}"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_that_cannot_be_is_one_line(numbered: Index, kind: str) -> None:
    source, message = SOURCES[kind]
    path = numbered.folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": source}))
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        Index.load(path)
    assert "\n" not in str(caught.value)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize("file", ["../a.tar", "/a.tar", "a//b.tar", "a/./b.tar", ""])
def test_a_name_that_leads_elsewhere_is_refused(numbered: Index, file: str) -> None:
    path = numbered.folder / "index.json"
    tree = {**json.loads(path.read_text()), "source": "https://host/set"}
    tree["shards"][0]["file"] = file
    path.write_text(json.dumps(tree))
    with pytest.raises(UsageError, match=f"shards: '{re.escape(file)}' is not the plain name of a file"):
        Index.load(path)


def test_a_command_in_an_index_from_elsewhere_is_not_run(numbered: Index, tmp_path: Path) -> None:
    path = numbered.folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": f"pipe:touch {tmp_path}/ran {{file}}"}))
    with serve(numbered.folder) as web, pytest.raises(UsageError, match="gets its shards from a shell command, which only an"):
        Index.load(web.url, tmp_path / "cache", ROOM)
    assert not (tmp_path / "ran").exists()


def test_tars_of_one_name_in_several_folders_do_not_collide(web: WebServer, tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        (web.folder / folder).mkdir()
        shutil.copy(web.folder / NAMES[number], web.folder / folder / "0.tar")
    index_remote_shards(f"{web.url}/{{a,b}}/0.tar", tmp_path / "index")
    index = Index.load(tmp_path / "index", tmp_path / "cache", ROOM)
    assert index.shards.files == ["a/0.tar", "b/0.tar"]
    (batch,) = islice(training_batches(index, batch_size=24, seed=0, start_nimg=0, rank=0, world_size=1, workers=0), 1)
    assert len(set(batch.images[:, 0, 0, 0].tolist())) == 24


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_ends_with_its_workers_and_the_next_one_goes_on(
    web: WebServer, tmp_path: Path, stop: signal.Signals
) -> None:
    web.always = dict.fromkeys(NAMES[2:], "stuck")
    words = ("shards", "index", f"{web.url}/{TARS}", "--out", tmp_path / "index", "--workers", 2)
    with running(sys.executable, "-m", "wavegan_dist", *words) as process:
        wait_for(lambda: len(list(tmp_path.glob(".index.partial/*.npz"))) >= 2, process)
        workers = psutil.Process(process.pid).children()
        process.send_signal(stop)
        _, errors = process.communicate(timeout=PATIENCE)
        assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []
    assert process.returncode == (130 if stop == signal.SIGINT else -stop)
    assert "Traceback" not in errors
    web.always = {}
    web.released.set()
    before = web.requests.total()
    assert index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index").digest == Index.load(web.folder).digest
    assert web.requests.total() - before <= 8
    assert max(web.requests[f"GET {name}"] for name in NAMES) == 2
    assert min(web.requests[f"GET {name}"] for name in NAMES) == 1


def test_an_error_does_not_wait_for_the_other_workers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nothing")
    first, second = f"until [ -e {tmp_path}/stuck ]; do sleep 0.01; done", f"touch {tmp_path}/stuck; cat {tmp_path}/nothing"
    pattern = f"pipe:if [ {{0..1}}.tar = 0.tar ]; then {first}; exit 3; fi; {second}; exit 4"
    children = len(psutil.Process().children())
    with pytest.raises(WaveganError, match="exit code 3"):
        index_remote_shards(pattern, tmp_path / "index", workers=2)
    assert len(psutil.Process().children()) <= children
    commands = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    left = psutil.wait_procs(commands, timeout=PATIENCE)[1]
    for command in left:
        command.kill()
    assert left == []


def test_a_tar_that_cannot_be_downloaded_is_asked_for_again_later(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    web.always, errors = {NAMES[2]: "404"}, list[DataError]()
    web.requests.clear()
    index = Index.load(tmp_path / "index", tmp_path / "cache", ROOM)
    stream = training_batches(
        index, batch_size=96, seed=0, start_nimg=0, rank=0, world_size=1, workers=0, on_errors=errors.extend
    )
    next(stream)
    assert {error.row for error in errors} == {None, *range(24, 36)}
    assert next(error for error in errors if error.row is None).reason.endswith("check the address and its read permissions")
    assert (
        1 <= (asked := web.requests[f"GET {NAMES[2]}"]) <= 2
    )  # by the reader, and before it by the process that fetches ahead
    web.always = {}
    errors.clear()
    next(stream)
    assert len({error.row for error in errors}) == 13
    monkeypatch.setattr(read, "PAUSE", 0.0)
    errors.clear()
    next(stream)
    assert errors == []
    assert asked < web.requests[f"GET {NAMES[2]}"] <= 3


def test_the_order_of_tars_elsewhere_is_that_of_tars_here_and_needs_no_cache(
    web: WebServer, tars: Path, tmp_path: Path, wavegan: Command
) -> None:
    index_remote_shards(f"{web.url}/{TARS}", tmp_path / "index")
    words = ("--epoch", 1, "--batch-size", 16, "--world-size", 2)
    here, elsewhere = (wavegan("shards", "order", folder, *words) for folder in (tars, tmp_path / "index"))
    assert (elsewhere.returncode, elsewhere.stderr) == (0, "")
    assert elsewhere.stdout == here.stdout
    assert len(here.stdout.splitlines()) == 6

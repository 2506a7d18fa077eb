"""`wavegan shards` accounts for every file: it is in the dataset, in `left_out.jsonl` with the reason, or an error."""

import bz2
import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Command, refused
from wavegan_dist.data import Index, index_shards, write_shards
from wavegan_dist.data.folders import files_in
from wavegan_dist.data.left_out import NOT_REGULAR
from wavegan_dist.errors import WaveganError


def encoded(number: int, form: str = "PNG", size: int = 32) -> bytes:
    """Encode an image of one color whose red value is `number`."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (number, 255 - number, 7)).save(buffer, form)
    return buffer.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
    return folder


def reds(folder: Path) -> list[int]:
    """The red values of the dataset's images, sorted; Pillow decodes them from the positions in members.npy."""
    index, found = Index.load(folder), []
    for number, shard in enumerate(index.shards):
        content = (folder / shard.file).read_bytes()
        for offset, size, _ in index.members[index.starts[number] : index.starts[number + 1]].tolist():
            pixels = np.asarray(Image.open(io.BytesIO(content[offset : offset + size])).convert("RGB"))
            found.append(int(pixels[0, 0, 0]))
    return sorted(found)


def result(wavegan: Command, *arguments: object) -> tuple[dict[str, Any], dict[str, int]]:
    """Run a command with --json and return what it prints, and the number of files left out by reason."""
    outcome = wavegan(*arguments, "--json", "--workers", 1)
    assert outcome.returncode == 0, outcome.stderr
    printed = json.loads(outcome.stdout)
    return printed, {entry["reason"]: entry["count"] for entry in printed["left_out"]}


def listed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]


NAMES = {
    **{
        "0.jfif": "JPEG",
        "1.jpe": "JPEG",
        "2.gif": "GIF",
        "3.avif": "AVIF",
        "4.bmp": "BMP",
        "5.tga": "TGA",
        "6.jp2": "JPEG2000",
        "7.QOI": "QOI",
        "8.ppm": "PPM",
        "9": "PNG",
    },
    **{"10": "WEBP", "11": "BMP", "12.JPG_large": "JPEG", "13.v2": "TIFF"},
}


def test_every_format_of_pillow_is_taken_under_any_name(wavegan: Command, tmp_path: Path) -> None:
    put(tmp_path / "in", {name: encoded(10 * int(name.split(".")[0]), form) for name, form in NAMES.items()})
    put(
        tmp_path / "in",
        {"notes.txt": b"BM is a bitmap", "x/.DS_Store": b"", "a.heic": b"\0\0\0\x18ftypheic", "__MACOSX/b.png": b""},
    )
    put(tmp_path / "in", {"sub/old.tar": b"", "b.zip": b"", "raw.NEF": encoded(1, "TIFF"), "raw.dng": encoded(1, "TIFF")})
    printed, reasons = result(wavegan, "shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32)
    assert printed["images"] == len(NAMES)
    assert np.abs(np.array(reds(tmp_path / "set")) - [10 * number for number in range(len(NAMES))]).max() <= 3
    assert reasons == {
        "hidden, or of macOS (__MACOSX)": 2,
        "an archive inside the folder; unpack it, or write it as a SOURCE": 1,
        "a tar that is not at the top level; write its folder as a SOURCE, or unpack it": 1,
        "no picture that Pillow reads (.txt)": 1,
        "no picture that Pillow reads (.heic)": 1,
        "no picture that Pillow reads (.nef)": 1,
        "no picture that Pillow reads (.dng)": 1,
    }
    assert sum(entry["files"] for entry in listed(tmp_path / "set")) == 8
    plain = wavegan("shards", "info", tmp_path / "set").stdout
    assert "left out: 2 hidden, or of macOS (__MACOSX), such as " in plain


def test_linked_folders_are_followed_and_loops_named(wavegan: Command, tmp_path: Path) -> None:
    put(tmp_path / "real", {f"{number}.png": encoded(number) for number in range(5, 10)})
    put(tmp_path / "in", {f"a/{number}.png": encoded(number) for number in range(5)})
    (tmp_path / "in" / "b").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone").symlink_to("nowhere")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "in_a_file.png").symlink_to("a/0.png/1.png")
    (tmp_path / "in" / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")  # opening it would wait forever
    _, reasons = result(wavegan, "shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32)
    assert reds(tmp_path / "set") == list(range(10))
    assert sorted((entry["file"], entry["reason"]) for entry in listed(tmp_path / "set")) == [
        (f"{tmp_path}/in/b/again", "a link to a folder that contains the link"),
        *((f"{tmp_path}/in/{name}", NOT_REGULAR) for name in ("gone", "gone.png", "in_a_file.png", "pipe.png", "self.png")),
    ]
    assert sum(reasons.values()) == 6


@pytest.mark.parametrize("command", ["write", "index"])
def test_a_tar_that_is_a_link_to_nothing_is_listed(wavegan: Command, tmp_path: Path, command: str) -> None:
    pack(tmp_path / "in" / "0.tar", {"1.png": encoded(1)})
    (tmp_path / "in" / "1.tar").symlink_to("nowhere.tar")
    out = tmp_path / ("set" if command == "write" else "in")
    arguments = (tmp_path / "in", out, "--size", 32) if command == "write" else (out,)
    assert result(wavegan, "shards", command, *arguments)[1] == {NOT_REGULAR: 1}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path: Path) -> Any:  # root may read every folder
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="closed"):
        files_in(tmp_path, [])


def members(count: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number in range(count):
        key = f"shot{number}.v2" if number % 2 else f"shot{number}"
        files |= {f"{key}.jpg": encoded(number, "JPEG"), f"{key}.json": b"{}"}
    return files


@pytest.mark.parametrize("command", ["write", "index"])
def test_members_that_webdataset_does_not_read_are_counted(wavegan: Command, tmp_path: Path, command: str) -> None:
    extra = {
        "no_extension": encoded(1),
        "set/._1.jpg": b"\0\5",
        "7.cls": b"1",
        "shot2.seg.png": encoded(1),
        "8..png": encoded(1),
    }
    pack(tmp_path / "in" / "0.tar", {**members(24), **extra, "g.gif": encoded(9, "GIF")})
    put(tmp_path / "in", {"lone.png": encoded(3), "1.tar.gz": b"", ".2.tar": b""})
    out = tmp_path / ("set" if command == "write" else "in")
    arguments = (tmp_path / "in", out, "--size", 32) if command == "write" else (out,)
    printed, reasons = result(wavegan, "shards", command, *arguments)
    taken = [*range(0, 24, 2), *([9] if command == "write" else [])]
    assert printed["images"] == len(taken)
    assert np.abs(np.array(reds(out)) - sorted(taken)).max() <= 2
    gif = {"of a format that training does not read (.gif); convert with `wavegan shards write`": 1}
    dotted = "with a dot before the extension of a picture: WebDataset ends the key at the first dot; rename them in the tar"
    assert reasons == {
        dotted: 14,
        "beside an image of the same key (.json)": 12,
        "without an image of the same key (.json)": 12,
        "without an extension, which WebDataset does not read": 1,
        "hidden, or of macOS (__MACOSX)": 2,
        "without an image of the same key (.cls)": 1,
        "beside tars, which alone are read; move the tars or these files to another folder": 1,
        "a compressed tar; decompress it": 1,
        **(gif if command == "index" else {}),
    }


def test_two_tars_joined_by_cat_are_refused(wavegan: Command, tmp_path: Path) -> None:
    first = pack(tmp_path / "a" / "0.tar", {"1.png": encoded(1)}).read_bytes()
    second = pack(tmp_path / "b" / "0.tar", {"2.png": encoded(2)}).read_bytes()
    (tmp_path / "a" / "0.tar").write_bytes(first + second)
    place = f"0.tar holds another tar from byte {len(first):,} on, which is never read"
    refused(wavegan("shards", "index", tmp_path / "a"), place, "tar --ignore-zeros -x", exit_code=1)
    refused(wavegan("shards", "write", tmp_path / "a", tmp_path / "set", "--size", 32), place, exit_code=1)


def pack_zip(path: Path, files: Mapping[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path.read_bytes()


@pytest.mark.parametrize("between", [b"x" * 512, b"\n", bytes(1024) + b"signature"])
def test_data_behind_the_end_of_a_tar_is_refused(wavegan: Command, tmp_path: Path, between: bytes) -> None:
    first = pack(tmp_path / "a" / "0.tar", {"1.png": encoded(1)}).read_bytes()
    second = pack(tmp_path / "b" / "0.tar", {"2.png": encoded(2)}).read_bytes()
    (tmp_path / "a" / "0.tar").write_bytes(first + between + second)
    words = ("0.tar holds other data from byte 1", "behind the end of the tar, which is never read")
    refused(wavegan("shards", "index", tmp_path / "a"), *words, exit_code=1)
    refused(wavegan("shards", "write", tmp_path / "a", tmp_path / "set", "--size", 32), *words, exit_code=1)


def test_two_zips_joined_by_cat_are_refused(wavegan: Command, tmp_path: Path) -> None:
    first, second = (pack_zip(tmp_path / f"{n}.zip", {f"{n}.png": encoded(n)}) for n in (1, 2))
    (tmp_path / "both.zip").write_bytes(first + second)
    write = ("shards", "write", tmp_path / "both.zip", tmp_path / "set", "--size", 32)
    refused(
        wavegan(*write), f"both.zip holds another zip before byte {len(first)}, ", f"`tail -c +{len(first) + 1}`", exit_code=1
    )
    (tmp_path / "both.zip").write_bytes(b"#!/bin/sh\nexit\n" + first + bytes(99))  # a zip that extracts itself
    assert wavegan(*write).returncode == 0
    assert reds(tmp_path / "set") == [1]


@pytest.mark.parametrize("command", ["write", "index"])
def test_tars_in_capitals_are_read(wavegan: Command, tmp_path: Path, command: str) -> None:
    pack(tmp_path / "in" / "0.tar", {"1.png": encoded(1)})
    pack(tmp_path / "in" / "1.TAR", {"2.png": encoded(2)})
    out = tmp_path / ("set" if command == "write" else "in")
    result(wavegan, "shards", command, *((tmp_path / "in", out, "--size", 32) if command == "write" else (out,)))
    assert reds(out) == [1, 2]


def test_a_damaged_picture_is_reported_in_one_line(wavegan: Command, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 64).convert("RGB").save(buffer, "TIFF", compression="tiff_lzw")
    put(tmp_path / "in", {"cut.tif": buffer.getvalue()[:-60]})  # Pillow also warns
    refused(wavegan("shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32), "cut.tif", "header", exit_code=1)


@pytest.mark.parametrize("packed", [False, True])
def test_labels_of_stylegan_are_not_taken_for_folders(wavegan: Command, tmp_path: Path, packed: bool) -> None:
    labels = json.dumps({"labels": [["00000/img0.png", 5], ["00001/img1.png", 5]]}).encode()
    files = {"00000/img0.png": encoded(1), "00001/img1.png": encoded(2), "dataset.json": labels}
    source = tmp_path / ("in.zip" if packed else "in")
    pack_zip(source, files) if packed else put(source, files)
    write = ("shards", "write", source, tmp_path / "set", "--size", 32)
    refused(wavegan(*write, "--labels"), "dataset.json lists the labels", "omit --labels")
    assert result(wavegan, *write)[1] == {"no picture that Pillow reads (.json)": 1}
    files["dataset.json"] = b'{"labels": null}'
    pack_zip(source, files) if packed else put(source, files)
    assert wavegan("shards", "write", source, tmp_path / "labeled", "--size", 32, "--labels").returncode == 0


def test_verify_and_info_name_tars_that_the_index_does_not_know(wavegan: Command, tmp_path: Path) -> None:
    pack(tmp_path / "in" / "0.tar", {"1.png": encoded(1)})
    assert wavegan("shards", "index", tmp_path / "in").returncode == 0
    assert not (tmp_path / "in" / "left_out.jsonl").exists()
    pack(tmp_path / "in" / "1.tar", {"2.png": encoded(2)})
    refused(wavegan("shards", "verify", tmp_path / "in"), "1.tar: not in the index", "wavegan shards index", exit_code=1)
    assert json.loads(wavegan("shards", "info", tmp_path / "in", "--json").stdout)["unknown_tars"] == ["1.tar"]
    assert "not in the index: 1.tar; " in wavegan("shards", "info", tmp_path / "in").stdout
    assert wavegan("shards", "index", tmp_path / "in").returncode == 0
    assert wavegan("shards", "verify", tmp_path / "in").returncode == 0


BAD = {
    "empty.png": b"",
    "page.jpg": b"<!DOCTYPE html><html>404</html>",
    "cut.png": encoded(1)[:60],
    "lfs.png": b"version https://git-lfs.github.com/spec/v1",
}


def test_bad_pictures_up_to_a_fraction_are_left_out_and_listed(wavegan: Command, tmp_path: Path) -> None:
    put(tmp_path / "in", {f"{number:02d}.png": encoded(number) for number in range(36)} | BAD)
    write = ("shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32)
    refused(wavegan(*write), "cannot be read as an image (", "repair or remove it, or leave", "--max-bad-fraction", exit_code=1)
    refused(wavegan(*write, "--max-bad-fraction", 0.09), "4 of 40 pictures cannot be decoded, more than", exit_code=1)
    refused(wavegan(*write, "--max-bad-fraction", 1.5), "1.5 bad pictures is impossible; give 0 to 1")
    assert not (tmp_path / "set").exists()
    printed, reasons = result(wavegan, *write, "--max-bad-fraction", 0.1)
    assert (printed["images"], reasons) == (36, {"cannot be decoded": 4})
    assert reds(tmp_path / "set") == list(range(36))
    details = {Path(entry["file"]).name: entry["detail"] for entry in listed(tmp_path / "set")}
    assert details.keys() == BAD.keys()
    assert details["empty.png"] == "the file is empty"
    assert details["page.jpg"] == "it is not a picture and begins with b'<!DOCTYPE html><'"
    assert "git lfs pull" in details["lfs.png"]
    assert not any("BytesIO" in detail for detail in details.values())


def test_pictures_without_a_patch_are_listed(wavegan: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    put(tmp_path / "in", {"small.png": encoded(1, size=16), "flat.png": encoded(2, size=64)})
    Image.fromarray(noise).save(tmp_path / "in" / "good.png")
    printed, reasons = result(wavegan, "shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32, "--patches")
    assert (printed["images"], reasons) == (9, {"without a patch: smaller than 32 px, or flat": 2})


def test_an_index_of_written_shards_keeps_what_was_left_out_of_their_source(wavegan: Command, tmp_path: Path) -> None:
    put(tmp_path / "in", {f"{name}/{number}.png": encoded(number) for number in range(4) for name in "ab"} | BAD)
    put(tmp_path / "in" / "b", {"notes.txt": b"x"})
    for name in BAD:
        (tmp_path / "in" / name).rename(tmp_path / "in" / "a" / name)
    write = ("shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32, "--labels", "--max-bad-fraction", 0.5)
    _, written = result(wavegan, *write)
    assert written == {"cannot be decoded": 4, "no picture that Pillow reads (.txt)": 1}
    put(tmp_path / "set", {"lone.png": encoded(1)})
    beside = {"beside tars, which alone are read; move the tars or these files to another folder": 1}
    for _ in range(2):
        assert result(wavegan, "shards", "index", tmp_path / "set")[1] == written | beside
    (tmp_path / "set" / "lone.png").unlink()
    chosen = result(wavegan, "shards", "index", tmp_path / "set", "--classes", "a")[1]
    assert chosen == written | {"not chosen by --classes or --keys": 4}
    assert result(wavegan, "shards", "index", tmp_path / "set")[1] == written
    (tmp_path / "set" / "left_out.jsonl").write_text('{"file": 1, "line": 2}\n[]\n')  # of another tool
    assert json.loads(wavegan("shards", "info", tmp_path / "set", "--json").stdout)["left_out"] == []


def test_a_zip_accounts_for_its_members(wavegan: Command, tmp_path: Path) -> None:
    files = {
        "./a.png": encoded(1),
        "b//c.gif": encoded(2, "GIF"),
        "d": encoded(3, "JPEG"),
        "__MACOSX/d.png": b"",
        "n.json": b"{}",
    }
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    _, reasons = result(wavegan, "shards", "write", tmp_path / "in.zip", tmp_path / "set", "--size", 32)
    assert reds(tmp_path / "set") == [1, 2, 3]
    assert reasons == {"hidden, or of macOS (__MACOSX)": 1, "no picture that Pillow reads (.json)": 1}


def test_each_wrong_source_has_a_message_of_its_own(wavegan: Command, tmp_path: Path) -> None:
    tar = pack(tmp_path / "tars" / "0.tar", {"1.png": encoded(1)})
    put(tmp_path, {"gz/0.tar.gz": gzip.compress(tar.read_bytes()), "named/0.tar": gzip.compress(tar.read_bytes())})
    put(
        tmp_path,
        {"bz/0.tar": bz2.compress(tar.read_bytes()), "lfs/0.tar": BAD["lfs.png"], "html/0.tar": b"<html>" + b" " * 600},
    )
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("1.png", encoded(1))
    put(tmp_path, {"cut.zip": (tmp_path / "whole.zip").read_bytes()[:60], "a.png": encoded(1), "a.7z": b"7z\xbc\xaf\x27\x1c"})
    both = {
        "nowhere": "nowhere does not exist; give",
        "gz": "a compressed tar; decompress it",
        "named": "0.tar is a gzip file despite its name; decompress it",
        "bz": "0.tar is a bzip2 file despite its name; decompress it",
        "lfs": "0.tar is not a tar: it is a Git LFS pointer; fetch the content with `git lfs pull`",
        "html": "0.tar is not a tar and begins with b'<html>",
    }
    write_only = {
        "tars/0.tar": f"0.tar is a single tar; give a folder that holds it, such as {tmp_path}/tars",
        "tars/{00..09}.tar": f"is a pattern, and no file has this name; give the folder of the tars, {tmp_path}/tars",
        "cut.zip": "cut.zip is a damaged or incomplete zip; copy it again",
        "a.png": "a.png is a single file, and not a zip; give a folder",
        "a.7z": "a.7z is a 7z file; unpack it and give the folder",
    }
    index_only = {
        "tars/0.tar": "is a file; give the folder",
        "gz": "holds no .tar; decompress the tars first, such as 0.tar.gz",
    }
    out = tmp_path / "set"
    with pytest.raises(WaveganError, match="the source is empty; give a folder"):  # Path("") is the working folder
        write_shards("", out, 32, progress=False)
    for name, words in {**both, **write_only}.items():
        with pytest.raises(WaveganError, match=re.escape(words)):
            write_shards(tmp_path / name, out, 32, progress=False)
    for name, words in {**both, **index_only}.items():
        with pytest.raises(WaveganError, match=re.escape(words)):
            index_shards(tmp_path / name)
    refused(wavegan("shards", "write", tmp_path / "cut.zip", out, "--size", 32), write_only["cut.zip"])
    refused(wavegan("shards", "verify", tmp_path / "tars"), f"write it with `wavegan shards index {tmp_path}/tars`")


def test_an_image_of_another_format_under_a_known_name_is_not_indexed(wavegan: Command, tmp_path: Path) -> None:
    pack(tmp_path / "in" / "0.tar", {"1.jpg": encoded(1, "JPEG"), "2.jpg": encoded(2, "BMP")})
    refused(
        wavegan("shards", "index", tmp_path / "in"), "2.jpg", "is a BMP despite its name, and training reads PNG, JPEG and WebP"
    )
    pack(tmp_path / "in" / "0.tar", {"1.jfif": encoded(1, "JPEG"), "2.jpg": encoded(2)})
    assert result(wavegan, "shards", "index", tmp_path / "in")[0]["images"] == 2
    assert Index.load(tmp_path / "in").encoding == "mixed"


def test_every_one_of_200_odd_names_is_in_the_set_or_on_the_list(wavegan: Command, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    endings = (".png", ".JPG", ".jfif", ".gif", "", ".v2.png", ".bmp", ".tiff", ".webp", ".txt", ".json", ".heic", ".tar.gz")
    folders = ("", "a/", "b.png/", ".thumbs/", "a/é \n/", "__MACOSX/")
    forms = {".JPG": "JPEG", ".jfif": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".tiff": "TIFF", ".webp": "WEBP"}
    good, files = list[int](), dict[str, bytes]()
    for number in range(200):
        ending, folder = endings[draws.integers(len(endings))], folders[draws.integers(len(folders))]
        picture = ending not in (".txt", ".json", ".heic", ".tar.gz")
        damaged = picture and ending and draws.random() < 0.2
        content = encoded(number, forms.get(ending, "PNG")) if picture else b"words"
        files[f"{folder}{number}{ending}"] = content[: len(content) // 3] if damaged else content
        good += [number] if picture and not damaged and folder not in (".thumbs/", "__MACOSX/") else []
    put(tmp_path / "in", files)
    write = ("shards", "write", tmp_path / "in", tmp_path / "set", "--size", 32, "--max-bad-fraction", 0.5)
    printed, _ = result(wavegan, *write)
    assert np.abs(np.array(reds(tmp_path / "set")) - good).max() <= 3
    assert printed["images"] + sum(entry["files"] for entry in listed(tmp_path / "set")) == 200

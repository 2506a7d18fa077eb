"""Tars compared with Python's tarfile, GNU tar and WebDataset."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from wavegan_dist.data.forward_file import KEPT, ForwardFile
from wavegan_dist.data.left_out import HIDDEN, LeftOut
from wavegan_dist.data.tars import Contents, Member, Sample, key_at, walk, walk_file, write_tar
from wavegan_dist.errors import WaveganError

LONG = f"{'deep/' * 30}{'n' * 90}.png"
NAMES = ["a.png", LONG, "ümlaut/ñ.png", f"{'日' * 60}.png", "b.seg.png", f"{'x' * 700}/c.png", "d.cls", "./e.PNG"]


def packed(path: Path, names: list[str], form: int) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 100 * number
            member.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1  # a PAX header for every member
            tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_lie_where_tarfile_says_and_the_key_is_found_from_there(tmp_path: Path, form: int) -> None:
    path = packed(tmp_path / "a.tar", NAMES, form)
    found = list(walk(path))
    with tarfile.open(path) as tar:
        assert [(one.name, one.offset, one.size) for one in found] == [(m.name, m.offset_data, m.size) for m in tar]
    for member in found:
        assert key_at(path, member.offset) == member.key
    assert [(one.key, one.extension) for one in found][-4:-1] == [("b", "seg.png"), (f"{'x' * 700}/c", "png"), ("d", "cls")]


def test_the_key_is_found_in_what_gnu_tar_packs(tmp_path: Path) -> None:
    for name in ("a.png", LONG, "ü.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x" * 1000)
    for form in ("gnu", "posix", "ustar"):
        subprocess.run(["tar", f"--format={form}", "-cf", tmp_path / f"{form}.tar", "-C", tmp_path / "in", "."], check=True)
        found = list(walk(tmp_path / f"{form}.tar"))
        assert sorted(member.name for member in found) == sorted(f"./{name}" for name in ("a.png", LONG, "ü.png"))
        assert all(key_at(tmp_path / f"{form}.tar", member.offset) == member.key for member in found)


def test_a_place_that_is_no_members_start_is_an_error(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ["a.png", "b.png"], tarfile.USTAR_FORMAT)
    for offset in (0, 100, 700, 10**9):
        with pytest.raises(WaveganError, match=r"a\.tar has no member at byte"):
            key_at(path, offset)


def test_keys_are_those_of_webdataset(tmp_path: Path) -> None:
    names = ["a.png", "b/c.d.png", "b.c/d.jpg", "._f.png", "no_extension", "g/h.i.j.cls"]
    write_tar(tmp_path / "a.tar", [(name, b"0") for name in names])
    dataset = webdataset.WebDataset([str(tmp_path / "a.tar")], shardshuffle=False)
    wanted = {(sample["__key__"], ending) for sample in dataset for ending in sample if not ending.startswith("__")}
    assert {(member.key, member.extension) for member in walk(tmp_path / "a.tar") if member.key} == wanted


def samples_in(path: Path, *extensions: str) -> list[Sample]:
    contents = Contents(str(path), extensions)
    with path.open("rb") as file:
        contents.read(file)
    return contents.samples()


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    visible = ["./a.png", "b.c/d.png", "e/__macosx/f.png"]
    hidden = ["./.g.png", ".h/i.png", "./.h/j.cls", "k/.l/m.png", "__MACOSX/n.png", "o/__MACOSX/p/q.png", ".h/caption.txt"]
    write_tar(tmp_path / "a.tar", [(name, b"0") for name in (*hidden, *visible)])
    contents, seen = Contents("a.tar", ["png"]), list[str]()
    with (tmp_path / "a.tar").open("rb") as file:
        contents.read(file, lambda member: seen.append(member.name))
    assert [sample.image.name for sample in contents.samples()] == seen == visible
    assert contents.left_out() == [LeftOut("./.g.png in a.tar", HIDDEN, 7)]


def test_a_label_may_lie_far_from_its_image(tmp_path: Path) -> None:
    files = [("a.png", b"1"), ("b.cls", b" 7\n"), ("b.json", b"{}"), ("b.png", b"2"), ("a.cls", b"0"), ("c.png", b"3")]
    write_tar(tmp_path / "a.tar", files)
    samples = samples_in(tmp_path / "a.tar", "png")
    assert [(image.key, label) for image, label in samples] == [("a", 0), ("b", 7), ("c", -1)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.png", b""), ("a.png", b"")], r"two members of one key, a\.png and a\.png"),
        ([("a.png", b""), ("a.jpg", b"")], r"two members of one key, a\.png and a\.jpg"),
        ([("a.png", b""), ("a.cls", b"cat")], r"a\.cls in .* holds b'cat', not a class number"),
        ([("a.png", b""), ("a.cls", b"-1")], r"a\.cls in .* holds b'-1', not a class number"),
    ],
)
def test_what_makes_no_sample_is_named(tmp_path: Path, files: list[tuple[str, bytes]], message: str) -> None:
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(WaveganError, match=message):
        samples_in(tmp_path / "a.tar", "png", "jpg")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused_by_name(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("deep/odd.png")
    member.type, member.linkname = kind, "a.png"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
        tar.addfile(member)
    with pytest.raises(WaveganError, match=r"deep/odd\.png in .*a\.tar is a link, a device or a sparse file"):
        list(walk(tmp_path / "a.tar"))


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "b/../../a.png", "b\\..\\a.png"])
def test_names_that_lead_out_of_the_tar_are_refused(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "a.tar", [(name, b"")])
    with pytest.raises(WaveganError, match=r"a\.png in .*a\.tar leads out of the archive"):
        list(walk(tmp_path / "a.tar"))


def test_every_cut_of_a_tar_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [(f"{number}.png", b"x" * 300 * number) for number in range(4)])
    original = path.read_bytes()
    end = 4 * 512 + 512 + 2 * 1024  # headers and padded contents; zeros after that
    for length in [*range(0, end, 100), *range(0, end + 1, 512), end + 511]:
        path.write_bytes(original[:length])
        with pytest.raises(WaveganError, match=r"a\.tar is (not a complete tar|damaged or cut short)") as whole:
            list(walk(path))
        with pytest.raises(WaveganError) as streamed:
            list(walk_file(forward(original[:length], 700), str(path)))
        assert str(streamed.value) == str(whole.value)
    path.write_bytes(original[: end + 512])
    assert len(list(walk(path))) == 4


def forward(content: bytes, block: int) -> ForwardFile:
    """The content, which arrives in blocks of `block` bytes."""
    return ForwardFile(iter([content[start : start + block] for start in range(0, len(content), block)]))


@pytest.mark.parametrize("block", [1, 511, 512, 513, 5000, 10**6])
def test_a_tar_that_passes_once_is_walked_like_one_on_disk_and_hashed(tmp_path: Path, block: int) -> None:
    path, draws = tmp_path / "a.tar", np.random.default_rng(block)
    files = {f"{'long/' * 30 * (number % 2)}{number}.png": draws.bytes(int(draws.integers(0, 3000))) for number in range(9)}
    with tarfile.open(path, "w", format=(tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)[block % 2]) as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    file = forward(path.read_bytes(), block)
    passed: list[tuple[Member, bytes]] = []
    for number, member in enumerate(walk_file(file, "a.tar")):
        passed.append((member, file.read(member.size if number % 3 else 0)))
    assert [member for member, _ in passed] == list(walk(path))
    contents = list(files.values())
    assert [content for _, content in passed] == [content if number % 3 else b"" for number, content in enumerate(contents)]
    assert file.finish() == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_file_that_passes_once_goes_back_a_block_and_no_further() -> None:
    file = forward(bytes(range(200)) * 20, 1000)
    assert file.seek(2500) == 2500
    assert file.seek(2500 - KEPT) == 2500 - KEPT
    assert file.read(1) == bytes([(2500 - KEPT) % 200])
    with pytest.raises(ValueError, match="byte 0 has passed"):
        file.seek(0)
    assert file.seek(10**6) == 4000
    assert file.read(1) == b""


def header(name: str, kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(**records: str) -> bytes:
    """A PAX header that replaces fields of the header after it."""
    lines = b"".join(
        b"%d %s" % (len(line) + 3, line) for key, value in records.items() if (line := f"{key}={value}\n".encode())
    )
    return header("pax", tarfile.XHDTYPE, len(lines)) + lines.ljust(tarfile.BLOCKSIZE, b"\0")


HOSTILE = {
    "a negative size, from which Python 3.11's tarfile reads the same headers without end": (
        pax(size="-1024") + header("a.png", tarfile.REGTYPE, 0),
        "a member of negative size",
    ),
    "a size above the largest position in a file": (header("a.png", tarfile.REGTYPE, 2**80), "too large|too big|cannot fit"),
    "thousands of long names before a member": (
        (header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2) + b"a".ljust(tarfile.BLOCKSIZE, b"\0")) * 3000,
        "recursion",
    ),
    "a header of negative size, for which tarfile would read the whole file": (
        header("pax", tarfile.XHDTYPE, -1024) + bytes(1024),
        "a header of negative size",
    ),
    "a long name of 100 MB": (header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 10**8) + bytes(10**8), "a header of 100,"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_one_line(tmp_path: Path, content: tuple[bytes, str]) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content[0] + bytes(10240))
    with pytest.raises(WaveganError, match=rf"a\.tar (?:is not a complete tar \(.*|has )(?:{content[1]})") as caught:
        list(walk(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(WaveganError), path.open("rb") as file:
        list(walk_file(ForwardFile(iter(lambda: file.read(1 << 16), b"")), "a.tar"))


def test_a_tar_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.tar", ["a.png", "b.png", "c.png"], tarfile.USTAR_FORMAT)
    monkeypatch.setattr("wavegan_dist.data.tars.MAX_MEMBERS", 2)
    with pytest.raises(WaveganError, match="more than 2 members"):
        list(walk(path))


@pytest.mark.parametrize("label", [b"99999999999999999999", b"1048576", b"-1"])
def test_a_label_that_is_no_class_number_is_refused(tmp_path: Path, label: bytes) -> None:
    write_tar(tmp_path / "a.tar", [("a.cls", label), ("a.png", b"x")])
    contents = Contents("a.tar", ("png",))
    with (tmp_path / "a.tar").open("rb") as file:
        contents.read(file)
    with pytest.raises(WaveganError, match=r"a\.cls in a\.tar holds .*, not a class number from 0 to 1048575"):
        contents.samples()

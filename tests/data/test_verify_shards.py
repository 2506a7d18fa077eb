import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import Command, refused
from wavegan_dist.data import Index, index_shards, info, info_table, save_sheet, verify_shards
from wavegan_dist.data.index import save_members
from wavegan_dist.data.tars import read_at, write_tar
from wavegan_dist.errors import UsageError, WaveganError


def test_whole_shards_have_no_problems(numbered: Index) -> None:
    assert verify_shards(numbered.folder) == verify_shards(numbered.folder / "index.json", workers=2) == []


@pytest.mark.parametrize("where", [0, 600, -1])
def test_one_flipped_byte_is_found(numbered: Index, where: int) -> None:
    path = numbered.folder / numbered.shards[3].file
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    problems = verify_shards(numbered.folder)
    assert problems == verify_shards(numbered.folder, workers=3)
    assert all(problem.startswith("shard-000003.tar: ") for problem in problems)
    assert "sha256" in problems[0]


@pytest.mark.parametrize(("length", "whole"), [(0, 0), (511, 0), (512, 0), (4620, 4), (5000, 5), (5120, 5), (12 * 1024, 12)])
def test_a_truncated_tar_is_named_with_what_is_left(numbered: Index, length: int, whole: int) -> None:
    path = numbered.folder / numbered.shards[2].file
    os.truncate(path, length)  # each image takes 1,024 bytes including its header
    size, damage, *images = verify_shards(numbered.folder)
    assert size == f"shard-000002.tar: {length:,} bytes, the index says {numbered.shards[2].bytes:,}"
    assert damage.startswith(f"shard-000002.tar: {path} is ")
    assert images == ([f"shard-000002.tar: {whole} complete images, the index says 12"] if whole < 12 else [])


def test_a_broken_header_in_mid_tar_is_found_even_where_the_hash_was_taken_after_it(numbered: Index) -> None:
    path = numbered.folder / numbered.shards[1].file
    content = bytearray(path.read_bytes())
    content[5 * 1024 + 150] ^= 1  # in the checksum of the sixth header, where tarfile ends without an error
    path.write_bytes(content)
    assert any("damaged or cut short at byte 5,120" in problem for problem in verify_shards(numbered.folder))
    assert any("5 complete images, the index says 12" in problem for problem in verify_shards(numbered.folder))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_wrong_row_of_members_is_found(numbered: Index, column: int) -> None:
    rows = numbered.members.copy()
    rows[30, column] += 1
    index = numbered.model_copy(update={"members_sha256": save_members([rows], numbered.folder)})
    index.save(numbered.folder)
    (problem,) = verify_shards(numbered.folder)
    assert problem.startswith("shard-000002.tar: 1 images differ from members.npy in position or label")
    assert problem.endswith("first 00000030")


def test_damage_to_members_is_found(numbered: Index) -> None:
    path = numbered.folder / "members.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "members.npy: sha256 differs from the index: bytes have changed" in verify_shards(numbered.folder)
    for broken, message in ((bytes(content[:-8]), "not a NumPy array"), (b"", "not a NumPy array"), (None, "No such file")):
        path.unlink()
        if broken is not None:
            path.write_bytes(broken)
        assert any(message in problem for problem in verify_shards(numbered.folder))
        with pytest.raises(UsageError, match=message):
            _ = Index.load(numbered.folder).members
    np.save(path, np.zeros((95, 3), np.int64))
    with pytest.raises(UsageError, match=r"int64 \[95, 3\] but the index says int64 \[96, 3\]"):
        _ = Index.load(numbered.folder).members


def test_an_index_travels_to_other_processes_without_its_members(numbered: Index) -> None:
    small = len(pickle.dumps(numbered))
    rows = numbered.members
    assert len(pickle.dumps(numbered)) == small
    again = pickle.loads(pickle.dumps(numbered))
    assert (again.members == rows).all()
    assert (again.folder, again.digest) == (numbered.folder, numbered.digest)


def test_a_contact_sheet_shows_images_of_the_set(numbered: Index, tmp_path: Path) -> None:
    save_sheet(numbered, tmp_path / "sheet.png")
    cells = np.asarray(Image.open(tmp_path / "sheet.png"))[::32, ::32].reshape(-1, 3)
    assert cells.shape == (64, 3)
    assert len({cell[0] for cell in cells.tolist()}) == 64
    assert (cells[:, 0].astype(int) + cells[:, 1] == 255).all()


def test_a_missing_shard_is_named(numbered: Index) -> None:
    (numbered.folder / "shard-000007.tar").unlink()
    assert verify_shards(numbered.folder) == ["shard-000007.tar: missing"]


def test_a_tar_with_fewer_images_than_the_index_says_is_found(numbered: Index) -> None:
    tree = json.loads((numbered.folder / "index.json").read_text())
    tree["shards"][0]["images"] += 1
    tree["count"] += 1
    (numbered.folder / "index.json").write_text(json.dumps(tree))
    assert "shard-000000.tar: 12 complete images, the index says 13" in verify_shards(numbered.folder)


def test_info_says_what_the_index_says(numbered: Index) -> None:
    summary = info(numbered)
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["count"], summary["size"], summary["digest"]) == (96, 32, numbered.digest)
    assert summary["bytes"] == sum(path.stat().st_size for path in numbered.folder.glob("*.tar"))
    table = info_table(numbered)
    assert table.startswith("96 RGB images of 32x32 px (png) in 8 shards")
    assert all(shard.file in table for shard in numbered.shards)


def test_index_round_trips(numbered: Index, tmp_path: Path) -> None:
    numbered.save(tmp_path)
    again = Index.load(tmp_path)
    assert again.model_dump() == numbered.model_dump()
    assert again.digest == numbered.digest
    assert again.folder == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not an index of shards"),
        ('{"size": 32}', "'count' is not set"),
        ("COUNT", "count is 97 but the shards list 96 images"),
        ("PATH", "'../elsewhere.tar' is not the plain name"),
        ("EXTRA", "unknown key 'color'"),
    ],
)
def test_a_bad_index_is_one_line_that_says_what_is_wrong(numbered: Index, text: str, message: str) -> None:
    path = numbered.folder / "index.json"
    tree = json.loads(path.read_text())
    match text:
        case "COUNT":
            tree["count"] = 97
        case "PATH":
            tree["shards"][0]["file"] = "../elsewhere.tar"
        case "EXTRA":
            tree["color"] = "blue"
    path.write_text(text if text[0] in "{[" else json.dumps(tree))
    with pytest.raises(UsageError, match=message) as caught:
        Index.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "wavegan shards write" in str(caught.value)


def test_a_missing_index_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index\.json: No such file or directory; write it with `wavegan shards write`"):
        Index.load(tmp_path)


def test_a_shard_that_cannot_be_read_is_one_of_the_problems(numbered: Index, wavegan: Command) -> None:
    shard, other = (numbered.folder / numbered.shards[number].file for number in (1, 4))
    shard.unlink()
    shard.symlink_to("/proc/self/mem")  # reading it is an error, also for root
    other.write_bytes(other.read_bytes()[:-1])
    outcome = wavegan("shards", "verify", numbered.folder)
    refused(outcome, f"{shard.name}: cannot be read: input/output error", f"{other.name}: ", exit_code=1)


def test_an_index_that_cannot_be_read_is_not_called_missing(numbered: Index, wavegan: Command) -> None:
    (numbered.folder / "index.json").unlink()
    (numbered.folder / "index.json").symlink_to("/proc/self/mem")
    outcome = wavegan("shards", "verify", numbered.folder)
    refused(outcome, "index.json: Input/output error")
    assert "write it" not in outcome.stderr


def test_a_folder_that_is_named_like_a_tar_is_no_unknown_tar(numbered: Index, wavegan: Command) -> None:
    (numbered.folder / "old.tar").mkdir()
    (numbered.folder / "gone.tar").symlink_to("nowhere.tar")
    assert wavegan("shards", "verify", numbered.folder).returncode == 0
    (numbered.folder / "new.TAR").write_bytes(bytes(10_240))
    refused(wavegan("shards", "verify", numbered.folder), "new.TAR: not in the index", exit_code=1)
    assert info(numbered)["unknown_tars"] == ["new.TAR"]


def test_an_index_with_hidden_images_of_an_older_version_stays_valid(
    numbered: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    contents = [read_at(numbered.folder / numbered.shards[0].file, *row[:2]) for row in numbered.members[:4].tolist()]
    names = ["a.png", ".b/c.png", "__MACOSX/d.png", "e.png"]
    write_tar(tars / "0.tar", [*zip(names, contents, strict=True), (".b/c.cls", b"3")])
    with monkeypatch.context() as patch:
        patch.setattr("wavegan_dist.data.tars.is_hidden", lambda name: False)
        older = index_shards(tars)
    assert (older.count, older.members[:, 2].tolist()) == (4, [-1, 3, -1, -1])
    assert verify_shards(tars) == []
    assert index_shards(tars).count == 2
    assert verify_shards(tars) == []


def test_a_broken_image_of_a_sheet_is_named_by_its_shard_and_place(numbered: Index, tmp_path: Path) -> None:
    offset, size, _ = numbered.members[1].tolist()
    with (numbered.folder / numbered.shards[0].file).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    remote = Index.load(f"pipe:cat '{numbered.folder}'/{{file}}", tmp_path / "cache", 2**20)
    with pytest.raises(WaveganError, match=rf"the image at byte {offset:,} of .*shard-000000\.tar cannot be decoded") as caught:
        save_sheet(remote, tmp_path / "sheet.png")
    assert "\n" not in str(caught.value)

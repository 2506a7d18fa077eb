import json
import os
from pathlib import Path

import pytest

from wavegan_dist.data import Index, info, info_table, verify_shards
from wavegan_dist.errors import UsageError


def test_whole_shards_have_no_problems(numbered: Index) -> None:
    assert verify_shards(numbered.folder) == verify_shards(numbered.folder / "index.json") == []


@pytest.mark.parametrize("where", [0, 600, -1])
def test_one_flipped_byte_is_found(numbered: Index, where: int) -> None:
    path = numbered.folder / numbered.shards[3].file
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    problems = verify_shards(numbered.folder)
    assert problems
    assert all(problem.startswith("shard-000003.tar: ") for problem in problems)
    assert "sha256" in problems[0]


@pytest.mark.parametrize("length", [0, 512, 5000])
def test_a_truncated_tar_is_named_with_what_is_left(numbered: Index, length: int) -> None:
    os.truncate(numbered.folder / numbered.shards[2].file, length)
    size, images = verify_shards(numbered.folder)
    assert size == f"shard-000002.tar: {length:,} bytes, the index says {numbered.shards[2].bytes:,}"
    assert images.endswith("whole images, the index says 12")


def test_a_missing_shard_is_named(numbered: Index) -> None:
    (numbered.folder / "shard-000007.tar").unlink()
    assert verify_shards(numbered.folder) == ["shard-000007.tar: missing"]


def test_a_tar_with_fewer_images_than_the_index_says_is_found(numbered: Index) -> None:
    tree = json.loads((numbered.folder / "index.json").read_text())
    tree["shards"][0]["images"] += 1
    tree["count"] += 1
    (numbered.folder / "index.json").write_text(json.dumps(tree))
    assert verify_shards(numbered.folder) == ["shard-000000.tar: 12 whole images, the index says 13"]


def test_info_says_what_the_index_says(numbered: Index) -> None:
    told = info(numbered)
    assert json.loads(json.dumps(told)) == told
    assert (told["count"], told["size"], told["digest"]) == (96, 32, numbered.digest)
    assert told["bytes"] == sum(path.stat().st_size for path in numbered.folder.glob("*.tar"))
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
        ('{"size": 32}', "'count' is missing"),
        ("COUNT", "count is 97 but the shards list 96 images"),
        ("PATH", "'../elsewhere.tar' is not the plain name"),
        ("EXTRA", "'colour' is unknown"),
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
            tree["colour"] = "blue"
    path.write_text(text if text[0] in "{[" else json.dumps(tree))
    with pytest.raises(UsageError, match=message) as caught:
        Index.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "wavegan shards write" in str(caught.value)


def test_a_missing_index_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index\.json: No such file or directory; write it with `wavegan shards write`"):
        Index.load(tmp_path)

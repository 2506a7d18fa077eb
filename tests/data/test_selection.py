"""`wavegan shards index` with classes, keys and names: datasets of some images of tars that are not changed."""

import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from torch import Tensor

from tests.helpers import Command, refused
from wavegan_dist.cli import main
from wavegan_dist.config import DataConfig
from wavegan_dist.data import (
    Index,
    classes_for_training,
    images_at,
    index_shards,
    info,
    load_training_data,
    verify_shards,
)
from wavegan_dist.data.index import save_members
from wavegan_dist.errors import UsageError

Read = Callable[[Tensor], list[int]]
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def write_tars(folder: Path, label: Callable[[int], int | None] = lambda number: number % 5) -> Path:
    """Write 4 tars of 10 images; image n has the red value n, the key imN and the class `label(n)`."""
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=10, verbose=0) as writer:
        for number in range(40):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 255 - number, 7)).save(content, "PNG")
            member = {} if label(number) is None else {"cls": label(number)}
            writer.write({"__key__": f"im{number}", "png": content.getvalue(), **member})
    return folder


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    return write_tars(tmp_path / "set")


def lines(path: Path, content: list[str]) -> Path:
    path.write_text("\n".join(content) + "\n")
    return path


@pytest.fixture
def names(tmp_path: Path) -> Path:
    return lines(tmp_path / "names.txt", NAMES)


def images(index: Index, numbers: Read) -> dict[int, int]:
    """The number of each image of a set, and its label."""
    (batch,) = images_at(index, np.arange(index.count), index.count)
    return dict(zip(numbers(batch), index.members[:, 2].tolist(), strict=True))


@pytest.mark.parametrize(
    ("classes", "labels"), [("cat,ant", [2, 0]), ("4", [4]), ("bee, 3,bee", [1, 3]), ("0,1,2,3,4", [*range(5)])]
)
def test_classes_are_chosen_by_name_or_number_and_renumbered(
    tars: Path, names: Path, numbers: Read, classes: str, labels: list[int]
) -> None:
    before = {path.name: sha256(path.read_bytes()).hexdigest() for path in tars.glob("*.tar")}
    index = index_shards(tars, classes=classes, class_names=names, workers=2)
    assert images(index, numbers) == {number: labels.index(number % 5) for number in range(40) if number % 5 in labels}
    assert index.classes == [NAMES[label] for label in labels]
    assert classes_for_training(index, max(len(labels), 2)).counts[: len(labels)] == [8] * len(labels)
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in tars.glob("*.tar")} == before
    assert verify_shards(tars, workers=2) == []
    assert Index.load(tars) == index


def test_keys_are_chosen_and_tars_without_them_are_left_out(tars: Path, numbers: Read, tmp_path: Path) -> None:
    keys = lines(tmp_path / "keys.txt", ["im3", "", " im25 ", "im21"])
    index = index_shards(tars, keys=keys, workers=2)
    assert images(index, numbers) == {3: 3, 21: 1, 25: 0}
    assert [(shard.file, shard.images) for shard in index.shards] == [("000.tar", 1), ("002.tar", 2)]
    assert verify_shards(tars) == []
    described = info(index)
    assert described["selection"] == {"images": 40, "labels": [], "classes": [], "unused_tars": ["001.tar", "003.tar"]}
    assert described["unknown_tars"] == []
    (reason,) = described["left_out"]
    assert (reason["reason"], reason["count"]) == ("not chosen by --classes or --keys", 37)
    (tars / "004.tar").write_bytes((tars / "003.tar").read_bytes())
    assert ["004.tar: not in the index" in line for line in verify_shards(tars)] == [True]


def test_classes_and_keys_together_choose_what_both_choose(tars: Path, names: Path, numbers: Read, tmp_path: Path) -> None:
    keys = lines(tmp_path / "keys.txt", [f"im{number}" for number in range(12)])
    index = index_shards(tars, classes="eel,bee", class_names=names, keys=keys)
    assert images(index, numbers) == {4: 0, 9: 0, 1: 1, 6: 1, 11: 1}
    keys.write_text("\ufeffim0\r\nim1\r\n")  # the file is read again; Windows writes it like this
    assert images(index_shards(tars, classes="bee", keys=keys), numbers) == {1: 0}
    with pytest.raises(UsageError, match="--classes eel: no image has the class eel; leave it out"):
        index_shards(tars, classes="eel", keys=keys)


def test_an_index_of_all_images_comes_back_with_its_names(tars: Path, names: Path) -> None:
    whole = index_shards(tars, class_names=names)
    assert whole.classes == NAMES
    assert "selection" not in json.loads((tars / "index.json").read_text())
    assert index_shards(tars, classes="dog,ant").classes == ["dog", "ant"]
    assert index_shards(tars, classes="eel").classes == ["eel"]
    assert index_shards(tars, classes="4,0").classes == ["eel", "ant"]
    again = index_shards(tars)
    assert (again.digest, again.content()) == (whole.digest, whole.content())


def test_classes_without_names_are_named_by_their_numbers(tars: Path) -> None:
    assert index_shards(tars, classes="4,2").classes == ["4", "2"]
    assert index_shards(tars).classes == []


def test_images_without_a_label_are_of_no_class(tmp_path: Path, numbers: Read) -> None:
    tars = write_tars(tmp_path / "set", lambda number: None if number % 2 else number % 5)
    assert images(index_shards(tars, classes="3,1"), numbers) == {8: 0, 18: 0, 28: 0, 38: 0, 6: 1, 16: 1, 26: 1, 36: 1}
    without = write_tars(tmp_path / "without", lambda _: None)
    with pytest.raises(UsageError, match=r"--classes 3, but no image has a label; give each image a \.cls member"):
        index_shards(without, classes="3")


@pytest.mark.parametrize(
    ("choice", "content", "message"),
    [
        ({"classes": "ant,cow"}, [], r"there is no class 'cow'; the classes are 0 to 4 \(ant, bee, cat, dog, eel\)$"),
        ({"classes": "bee,ewl"}, [], "there is no class 'ewl'; did you mean 'eel'\\?"),
        ({"classes": "5"}, [], "there is no class '5'; the classes are 0 to 4"),
        ({"classes": "99999999999"}, [], "there is no class '99999999999'; the classes are 0 to 4"),
        ({"classes": "9" * 5000}, [], "there is no class '9+'; the classes are 0 to 4"),
        ({"keys": "file"}, ["im3", "im40", "im77"], "2 of 3 keys in .*file are in no tar, first im40; correct the list"),
        ({"keys": "file"}, [], "file is empty; write keys into it, one a line"),
        ({"keys": "none"}, [], "cannot read the keys in .*none: No such file"),
        ({"class_names": "file"}, ["a", "b"], "file has 2 names, but there are labels up to 4; name each class from 0 on"),
        ({"class_names": "file"}, [*"abcdb"], "file has the name b twice; give each class its own"),
    ],
)
def test_a_wrong_choice_is_one_line_and_keeps_the_index(
    tars: Path, names: Path, tmp_path: Path, choice: dict[str, str], content: list[str], message: str
) -> None:
    before = index_shards(tars, class_names=names)
    lines(tmp_path / "file", content)
    chosen: dict[str, Any] = {name: value if name == "classes" else tmp_path / value for name, value in choice.items()}
    with pytest.raises(UsageError, match=message) as caught:
        index_shards(tars, workers=2, **chosen)
    assert "\n" not in str(caught.value)
    assert Index.load(tars) == before


def test_verify_finds_wrong_labels_and_rows_of_a_choice(tars: Path, names: Path) -> None:
    index = index_shards(tars, classes="cat,ant", class_names=names)
    for column, value in ((2, 2), (0, 512)):
        members = np.array(index.members)
        members[5, column] += value
        index.model_copy(update={"members_sha256": save_members([members], tars)}).save(tars)
        (problem,) = verify_shards(tars)
        assert problem.startswith("001.tar: ")


def test_choices_of_linked_tars_are_mixed(tars: Path, names: Path, tmp_path: Path, numbers: Read) -> None:
    """Two sets of the same tars, without a second copy: one of each class, with the same numbers of the classes."""
    sets = []
    for name, classes in (("insects", "ant,bee"), ("all", "ant,bee,cat,dog,eel")):
        folder = tmp_path / name
        folder.mkdir()
        for tar in tars.glob("*.tar"):
            (folder / tar.name).symlink_to(tar)
        index_shards(folder, classes=classes, class_names=names)
        sets.append({"index": str(folder), "weight": 1})
    assert verify_shards(tmp_path / "insects") == []
    data = load_training_data(DataConfig(index=sets))
    assert [one.count for one in data.sets] == [16, 40]
    with pytest.raises(UsageError, match=r"class 2 is without a name in .*insects and cat in .*all"):
        classes_for_training(data, 5)


def test_the_command_line_chooses_and_info_says_so(
    tars: Path, names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wavegan: Command, config: Path
) -> None:
    keys = lines(tmp_path / "keys.txt", [f"im{number}" for number in range(35)])
    choice = ["--classes", "dog,bee", "--keys", str(keys), "--class-names", str(names)]
    assert main(["shards", "index", str(tars), *choice]) == 0
    assert main(["shards", "verify", str(tars)]) == 0
    assert main(["shards", "info", str(tars)]) == 0
    printed = capsys.readouterr().out
    assert f"{tars}: 14 images of 32 px in 4 shards" in printed
    assert "  26 not chosen by --classes or --keys, such as " in printed
    assert "chosen from the 40 images of the tars" in printed
    assert "labels: 2 classes (dog, bee)" in printed
    settings = (f"data.index={tars}", "model.num_classes=2", "train.total_kimg=0.064", "train.report_kimg=0.064")
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", *settings)
    assert outcome.returncode == 0, outcome.stderr
    classes = json.loads((tmp_path / "run" / "environment.json").read_text())["classes"]
    assert classes == {"counts": [7, 7], "names": ["dog", "bee"]}
    refused(wavegan("shards", "index", tars, "--classes", "cow"), "there is no class 'cow'")


@pytest.mark.parametrize("named", [True, False])
def test_a_class_that_cannot_exist_is_refused_before_the_tars_are_read(
    tars: Path, names: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr("wavegan_dist.data.indexing.scan_tar", lambda tar: pytest.fail(f"{tar.name} was read"))
    message = r"there is no class 'cow'; the classes are 0 to 4 \(ant" if named else "--classes 1,cow: the names .* are unknown"
    with pytest.raises(UsageError, match=message):
        index_shards(tars, classes="1,cow", class_names=names if named else None)

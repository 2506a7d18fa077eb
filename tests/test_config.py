"""The experiment: what is accepted, and what errors say."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from wavegan_dist import config
from wavegan_dist.config import FileKind, Section
from wavegan_dist.config.decode import yaml_text, yaml_value
from wavegan_dist.config.reference import reference
from wavegan_dist.config.schema import settings
from wavegan_dist.errors import UsageError
from wavegan_dist.files import parse_json

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text("data: {index: shards/index.json}\noptim: {lr_g: 1e-4}\n")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    config.load(path)


def test_defaults_are_the_method_s(minimal: Path) -> None:
    experiment = config.load(minimal)
    assert experiment.model.z_low == experiment.model.z_dim // 2
    assert (experiment.model.attention, experiment.model.lam, experiment.model.band_scale) == ("max", "free", "none")
    assert experiment.loss.weights.model_dump() == {"image": 1, "low": 1, "high": 1}
    assert experiment.train.d_steps == 1


def test_numbers_in_scientific_notation_are_numbers(minimal: Path) -> None:
    assert config.load(minimal).optim.lr_g == 1e-4  # PyYAML reads 1e-4 as a string


def test_the_sets_of_a_mixture_read_back_equal_and_one_set_is_its_index(minimal: Path, tmp_path: Path) -> None:
    sets = "[{index: a/index.json, weight: 3}, {index: 'http://host/b', weight: 0.5}]"
    experiment = config.load(minimal, [f"data.index={sets}"])
    assert [(one.index, one.weight) for one in experiment.data.sets] == [("a/index.json", 3), ("http://host/b", 0.5)]
    (tmp_path / "resolved.yaml").write_text(experiment.to_yaml())
    assert config.load(tmp_path / "resolved.yaml") == experiment
    assert config.differences(experiment, config.load(minimal, [f"data.index={sets.replace('3', '4')}"]))
    assert config.load(minimal, ["data.index=[{index: a, weight: 3}]"]).data.index == "a"
    with pytest.raises(UsageError, match=r"data\.index holds a password"):
        config.check_passwords(config.load(minimal, [f"data.index={sets.replace('host', 'u:secret@host')}"]))


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("data/photos64/index.json", "photos64"),
        ("data/photos64/", "photos64"),
        ("photos64", "photos64"),
        ("data/birds/owls.json", "owls"),
        ("index.json", "set"),
        ("..", "set"),
        ("https://host:80/my set", "set"),
        ("s3://bucket", "bucket"),
        ("pipe:aws s3 cp s3://bucket/faces/{file} -", "faces"),
        ("pipe:cat '/data/a set'/{file}", "set"),
        ("data/caf\u00e9+1", "caf__1"),
    ],
)
def test_a_set_is_named_after_its_folder(index: str, name: str) -> None:
    assert config.set_names([index, "other"]) == [name, "other"]


def test_sets_of_equal_names_are_numbered() -> None:
    assert config.set_names(["a/set", "b/set/index.json", "1-set"]) == ["1-set", "2-set", "3-1-set"]


def test_overrides_win_and_the_resolved_yaml_reads_back_equal(minimal: Path, tmp_path: Path) -> None:
    experiment = config.load(minimal, ["train.batch_size=16", "model.attention_at=[8, 16]", "optim.clip_norm=1.5", "seed=7"])
    assert (experiment.train.batch_size, experiment.model.attention_at, experiment.optim.clip_norm) == (16, [8, 16], 1.5)
    (tmp_path / "resolved.yaml").write_text(experiment.to_yaml())
    assert config.load(tmp_path / "resolved.yaml") == experiment


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.widht=8", "unknown key 'model.widht'; did you mean 'model.width'?"),
        ("batch_size=8", "unknown key 'batch_size'; did you mean 'train.batch_size'?"),
        ("trian.batch_size=8", "unknown key 'trian'; did you mean 'train'?"),
        ("model.resolution=48", "model.resolution: 48 is not a power of two from 32 to 1024; the nearest is 32"),
        ("model.resolution=2048", "2048 is not a power of two from 32 to 1024; the nearest is 1024"),
        ("model.num_classes=1", "model.num_classes: one class says nothing about an image; set 0"),
        ("model.levels=3", "model.levels: 3 levels leave bands of less than 8 px of 32 px; the most are 2"),
        ("model.levels=0", "model.levels = 0: input should be greater than 0"),
        ("model.num_classes=1000000000000", "model.num_classes = 1000000000000: input should be less than or equal to 1048576"),
        ("model.z_dim=10000000000000", "model.z_dim = 10000000000000: input should be less than or equal to"),
        ("model.width=10000000000000", "model.width = 10000000000000: input should be less than or equal to"),
        ("train.batch_size=10000000000000", "train.batch_size = 10000000000000: input should be less than or equal to"),
        ("data.cache_gib=1.0e+300", "data.cache_gib = 1e+300: input should be less than or equal to 1000000000"),
        ("train.total_kimg=1.0e+300", "train.total_kimg = 1e+300: input should be less than or equal to 1000000000000000"),
        (
            "train.keep_checkpoint_kimg=1.0e-300",
            "train.keep_checkpoint_kimg = 1e-300: input should be greater than 0.000000001",
        ),
        ("train.d_steps=1000000000000", "train.d_steps = 1000000000000: input should be less than or equal to 1048576"),
        ("augment.ramp_kimg=5", "augment.ramp_kimg: 5 has no effect while augment.probability = 0"),
        ("optim.lr_final=0.5", "optim.lr_final: 0.5 has no effect on constant rates; set optim.lr_decay=cosine"),
        (
            "optim={lr_warmup_kimg: 20, lr_decay: cosine, lr_decay_kimg: 10}",
            "optim.lr_decay_kimg: the cosine ends at 10 kimg, before optim.lr_warmup_kimg = 20; make it longer",
        ),
        ("ema.half_life_kimg=true", "ema.half_life_kimg: True is not a number above 0"),
        ("ema.half_life_kimg=[5, 1, 1.0000000001]", "names a half-life twice; give each once"),
        ("ema.half_life_kimg=1.0e-9", "ema.half_life_kimg: 1e-09 is not within 1e-06 to 1e+09"),
        ("ema.half_life_kimg=[1, 1.0e+300]", "is not within 1e-06 to 1e+09"),
        ("model.z_low=0", "model.z_low: 0 leaves one part of the latent empty; the nearest of 1..127 is 1"),
        ("model.z_low=128", "the nearest of 1..127 is 127"),
        ("model.attention=mxa", "model.attention = 'mxa' is not one of max, dot, none; did you mean 'max'?"),
        ("model.attention_at=[32]", "no feature map of a 32 px generator is 32 px; choose from [4, 8, 16]"),
        ("model.attention_at=[16, 16]", "model.attention_at: [16, 16] names a side twice; give each once"),
        ("train.batch_size=lots", "train.batch_size = 'lots': input should be a valid integer"),
        ("train.batch_size=0", "train.batch_size = 0: input should be greater than 0"),
        ("optim.lr_g=.nan", "optim.lr_g = nan: input should be a finite number"),
        ("loss.weights={image: 0, low: 0, high: 0}", "loss.weights: all three weights are 0"),
        ("loss.weights.low=-1", "loss.weights.low = -1: input should be greater than or equal to 0"),
        ("data.index=null", "data.index: None is neither text nor a list of {index: TEXT, weight: NUMBER}"),
        ("data.index=[]", "data.index: [] is neither text nor a list"),
        ("data.index=[a, b]", "data.index: 'a' in the list is not of the form {index: TEXT, weight: NUMBER}"),
        ("data.index=[{index: a, weight: 1, name: x}]", "in the list is not of the form {index: TEXT, weight: NUMBER}"),
        ("data.index=[{index: a, weight: 1}, {index: b}]", "data.index: {'index': 'b'} in the list is not of the form"),
        ("data.index=[{index: a, weight: 0}]", "data.index: the weight of a: 0 is not a number above 0"),
        ("data.index=[{index: a, weight: 1}, {index: b, weight: -2}]", "the weight of b: -2 is not a number above 0"),
        ("data.index=[{index: a, weight: .nan}]", "data.index: the weight of a: nan is not a number above 0"),
        ("data.index=[{index: a, weight: .inf}]", "data.index: the weight of a: inf is not a number above 0"),
        ("data.index=[{index: a, weight: much}]", "data.index: the weight of a: 'much' is not a number above 0"),
        ("data.index=[{index: a, weight: 0.123456789123}, {index: b, weight: 1}]", "1.0 have too many digits; round them"),
        ("train.strategy=zero4", "train.strategy = 'zero4' is not one of ddp, zero1, zero2, zero3; did you mean 'zero"),
        ("optim.lr_g.x=1", "'lr_g' is a value, not a section"),
        (
            "tracking.uri=runs/mlflow",
            "tracking.uri: runs/mlflow is not an MLflow store that runs can be sent to; give sqlite:///FILE",
        ),
        ("train.batch_size=yes", "train.batch_size: true is not a number"),
        ("model.z_low=off", "model.z_low: false is not a number"),
        ("optim.lr_g=true", "optim.lr_g: true is not a number"),
        ("loss.weights.low=on", "loss.weights.low: true is not a number"),
        ("data.index=''", "data.index: the text is empty"),
        ("data.cache=''", "data.cache: the text is empty"),
        ("tracking.experiment=''", "tracking.experiment: the text is empty"),
        ("justakey", "not of the form key=value"),
        ("seed=[1", "the value is not valid YAML"),
        (f"seed={'[' * 5000}", "the value is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(minimal: Path, override: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        config.load(minimal, [override])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("a: [1", "is not valid YAML"),
        ("- 1", "is not a config: its content is not a mapping"),
        ("seed: 1", "'data' is not set"),
        ("data: {}", "'data.index' is not set; give it in the file or as data.index=VALUE"),
        ("data: {index: x}\ntrain:\n", "train is empty; remove this line, or set keys below it"),
        ("data: {index: x}\nseed: 1\nseed: 2\n", "line 3 has the key 'seed' again; keep one of them"),
        ("data: {index: x, index: y}", "line 1 has the key 'index' again"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as refusal:
        config.load(path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_override_fills_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("data: {index: x}\ntrain:\n")
    assert config.load(tmp_path / "empty.yaml", ["train.batch_size=8"]).train.batch_size == 8


def test_differences_name_settings_but_not_those_that_may_change(minimal: Path) -> None:
    old, new = config.load(minimal), config.load(minimal, ["train.total_kimg=5", "model.width=8", "data.workers=0"])
    assert config.differences(old, new) == ["model.width: 64 -> 8"]
    assert config.may_change_on_resume() <= set(old.flat())


def test_the_reference_is_that_of_the_schema_and_describes_every_setting() -> None:
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert page.read_text() == reference(), "docs/configuration.md is stale; run `make docs`"


def test_every_section_is_once_in_the_reference() -> None:
    headings = [line for line in reference().splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings))
    assert "## loss.weights" in headings
    assert all(field.description for _, field in settings())


def test_settings_that_may_change_on_resume_are_marked_in_the_schema(minimal: Path) -> None:
    changeable = config.may_change_on_resume()
    assert {"data.workers", "train.strategy", "train.total_kimg", "tracking.enabled"} <= changeable
    assert not {"seed", "data.index", "model.width", "optim.lr_g", "train.batch_size", "ema.rampup"} & changeable


PARTS = FileKind("part list", "see parts.md", missing="write {key}")


class Part(Section):
    name: str
    kind: Literal["gear", "screw"] = "gear"
    teeth: int = Field(1, ge=1)


class Parts(Section):
    parts: list[Part]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"parts": [{"name": "a", "tooth": 3}]}, "unknown key 'parts.0.tooth'; did you mean 'parts.teeth'?"),
        ({"parts": [], "zzz": 3}, "unknown key 'zzz'; see parts.md"),
        ({"parts": [], "zzz": 3, "yyy": 3}, "unknown key 'zzz'; unknown key 'yyy'; see parts.md"),
        ({}, "'parts' is not set; write parts"),
        ({"parts": [{}]}, "'parts.0.name' is not set; write parts.0.name"),
        ({"parts": [{"name": "a", "kind": "geer"}]}, "parts.0.kind = 'geer' is not one of gear, screw; did you mean 'gear'?"),
        ({"parts": [{"name": "a", "teeth": 0}]}, "parts.0.teeth = 0: input should be greater than or equal to 1"),
        ({"parts": [3]}, "parts.0 = 3 is not a mapping of settings"),
        ({"parts": [{}, 3]}, "'parts.0.name' is not set; write parts.0.name; parts.1 = 3 is not a mapping of settings"),
    ],
)
def test_any_file_that_users_write_is_explained_in_the_same_words(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        PARTS.validate(Parts, tree, "parts.yaml")
    assert str(refusal.value) == f"parts.yaml: {words}"


# Each level stands for ten times the values of the level below it.
BILLION_VALUES = b"a: &a [0]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 10)) for n in b"bcdefghij"
)
BILLION_KEYS = b"a: &a {x: 0}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 10)) for n in b"bcdefghij"
)


@pytest.mark.parametrize(
    ("content", "decode", "words"),
    [
        (b"a: [", yaml_value, "parts is not valid YAML: "),
        (b"{", parse_json, "parts is not valid JSON: "),
        (b"\xff", parse_json, "parts is not valid JSON: "),
        (b"[]", parse_json, "parts is not a part list: its content is not a mapping"),
        (b"", yaml_value, "parts is not a part list: its content is not a mapping"),
        (b"a: " + b"[" * 5000, yaml_value, "parts is not valid YAML: "),
        (b"[" * 100_000, parse_json, "parts is not valid JSON: it is nested too deeply"),
        (
            b"a: &a [*a]",
            yaml_value,
            "parts is not valid YAML: its aliases stand for more than 100,000 values, or for themselves",
        ),
        (BILLION_VALUES, yaml_value, "parts is not valid YAML: its aliases stand for more than 100,000 values"),
        (BILLION_VALUES, yaml_text, "parts is not valid YAML: its aliases stand for more than 100,000 values"),
        (BILLION_KEYS, yaml_value, "parts is not valid YAML: its aliases stand for more than 100,000 values"),
        (b"a: " + b"1" * 2**20, yaml_value, "parts is not valid YAML: its 1,048,579 characters are more than 1,048,576"),
        (b"a: !!int ''", yaml_value, "parts is not valid YAML: "),
        (b"a: !!bool x", yaml_value, "parts is not valid YAML: "),
        (b"a: !!timestamp x", yaml_value, "parts is not valid YAML: "),
        (b'a: "\\ud800"', yaml_value, "parts is not valid YAML: 'utf-8' codec can't encode character"),
    ],
)
def test_any_file_of_another_syntax_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, decode: Callable[[str], Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts").write_bytes(content)
    with pytest.raises(UsageError) as refusal:
        dataclasses.replace(PARTS, decode=decode).read(Path("parts"))
    assert str(refusal.value).startswith(words)
    assert str(refusal.value).endswith("; see parts.md")
    assert "\n" not in str(refusal.value)


def test_a_message_is_short_whatever_the_file_holds() -> None:
    tree = {f"unknown{number}" * 100: 0 for number in range(500)} | {
        "data": {"index": [["x" * 10_000] * 1000] * 100},
        "seed": 2**100_000,
    }
    with pytest.raises(UsageError, match=r"and 4\d\d more") as refusal:
        config.parse(tree, "a.yaml")
    assert len(str(refusal.value)) < 12_000

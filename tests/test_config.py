"""The experiment: what is accepted, and what errors say."""

from pathlib import Path

import pytest

from wavegan_dist import config
from wavegan_dist.errors import UsageError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.fixture
def minimal(tmp_path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text("data: {index: shards/index.json}\noptim: {lr_g: 1e-4}\n")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_project_is_valid(path):
    config.load(path)


def test_defaults_are_the_method_s(minimal):
    experiment = config.load(minimal)
    assert experiment.model.z_low == experiment.model.z_dim // 2
    assert (experiment.model.attention, experiment.model.lam, experiment.model.band_scale) == ("max", "free", "none")
    assert experiment.loss.weights.model_dump() == {"image": 1, "low": 1, "high": 1}
    assert experiment.train.d_steps == 1


def test_numbers_in_scientific_notation_are_numbers(minimal):
    assert config.load(minimal).optim.lr_g == 1e-4  # PyYAML reads 1e-4 as a string


def test_overrides_win_and_the_resolved_yaml_reads_back_equal(minimal, tmp_path):
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
        ("model.resolution=48", "model.resolution: 48 is not a power of two from 32 to 256; the nearest is 32"),
        ("model.z_low=0", "model.z_low: 0 leaves a half of the latent empty; the nearest of 1..127 is 1"),
        ("model.z_low=128", "the nearest of 1..127 is 127"),
        ("model.attention=mxa", "model.attention = 'mxa' is not one of max, dot, none; did you mean 'max'?"),
        ("model.attention_at=[32]", "no feature map of a 32 px generator is 32 px; choose from [4, 8, 16]"),
        ("train.batch_size=lots", "train.batch_size = 'lots': input should be a valid integer"),
        ("train.batch_size=0", "train.batch_size = 0: input should be greater than 0"),
        ("optim.lr_g=.nan", "optim.lr_g = nan: input should be a finite number"),
        ("loss.weights={image: 0, low: 0, high: 0}", "loss.weights: all three weights are 0"),
        ("loss.weights.low=-1", "loss.weights.low = -1: input should be greater than or equal to 0"),
        ("data.index=null", "data.index = None: input should be a valid string"),
        ("train.strategy=zero4", "train.strategy = 'zero4' is not one of ddp, zero1, zero2, zero3; did you mean 'zero"),
        ("optim.lr_g.x=1", "'lr_g' is a value, not a section"),
        ("tracking.uri=runs/mlflow", "tracking.uri: runs/mlflow is no MLflow store; give sqlite:///FILE"),
        ("justakey", "not of the form key=value"),
        ("seed=[1", "the value is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(minimal, override, words):
    with pytest.raises(UsageError) as refusal:
        config.load(minimal, [override])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("a: [1", "is not valid YAML"),
        ("- 1", "is not a mapping"),
        ("seed: 1", "'data' is not set"),
        ("data: {}", "'data.index' is not set; give it in the file or as data.index=VALUE"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path, content, words):
    path = tmp_path / "wrong.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as refusal:
        config.load(path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_differences_name_settings_but_not_those_that_may_change(minimal):
    old, new = config.load(minimal), config.load(minimal, ["train.total_kimg=5", "model.width=8", "data.workers=0"])
    assert config.differences(old, new) == ["model.width: 64 -> 8"]
    assert set(config.MAY_CHANGE_ON_RESUME) <= set(old.flat())

"""Sampling from a generator in Python; saving and loading it."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import Command, refused
from tests.model.snapshots import MODELS, NAMED, settle, write_snapshot
from wavegan_dist import counted
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.images import to_uint8
from wavegan_dist.model import WaveletGenerator, load_snapshot


@pytest.fixture(scope="module", params=list(MODELS))
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002", **MODELS[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> WaveletGenerator:
    return WaveletGenerator.from_pretrained(write_snapshot(tmp_path_factory.mktemp("run") / "kimg-000002", num_classes=3))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_package_contains_a_small_generator(here: Path, wavegan: Command) -> None:
    images = WaveletGenerator.from_pretrained("embedded-32").sample(64)
    assert images.shape == (64, 3, 32, 32)
    assert images.float().std() > 30
    assert images.float().std(dim=0).mean() > 30  # they differ from each other
    loaded = load_snapshot("embedded-32")
    assert sum(path.stat().st_size for path in loaded.path.iterdir()) < 6e6
    outcome = wavegan("sample", "--snapshot", "embedded-32", "--count", 4, "--out", "out", "--device", "cpu", cwd=here)
    assert outcome.returncode == 0, outcome.stderr
    assert torch.equal(picture(here / "out/000003.png"), images[3])


def test_a_folder_of_the_same_name_comes_first(here: Path, plain: Path) -> None:
    (here / "embedded-32").symlink_to(plain)
    assert load_snapshot("embedded-32").nimg == load_snapshot(plain).nimg


@pytest.mark.parametrize("name", ["embedded-33", "../pretrained/embedded-32", "x/embedded-32"])
def test_only_the_bare_name_finds_it(here: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a snapshot"):
        load_snapshot(name)


def picture(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def texts(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".json", ".yaml"))


def test_images_are_those_of_the_command_and_of_the_network(snapshot: Path, wavegan: Command, tmp_path: Path) -> None:
    generator = WaveletGenerator.from_pretrained(snapshot)
    images = generator.sample(20, seed=3)
    assert (images.dtype, images.shape) == (torch.uint8, (20, 3, 32, 32))
    assert images.float().std() > 5
    outcome = wavegan(
        "sample", "--snapshot", snapshot, "--count", 20, "--seed", 3, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert outcome.returncode == 0, outcome.stderr
    for number, image in enumerate(images):
        assert torch.equal(image, picture(tmp_path / "out" / f"{number:06d}.png")), number
    z = counted.normal(3, "latent/evaluate", range(16), 8)
    labels = counted.categories(3, "class/evaluate", range(16), NAMED.counts) if generator.num_classes else None
    with torch.no_grad():
        assert torch.equal(images[:16], to_uint8(generator(z, labels)))


def test_image_i_does_not_depend_on_the_count_nor_on_training_mode_which_is_kept(plain: Path) -> None:
    generator = WaveletGenerator.from_pretrained(plain)
    images = generator.sample(17)
    assert not generator.training
    generator.train()
    generator.base.eval()
    assert torch.equal(generator.sample(3), images[:3])
    assert (generator.training, generator.base.training, generator.low.training) == (True, False, True)
    assert not torch.equal(generator.sample(3, seed=1), images[:3])
    assert torch.equal(generator.sample(17, exact=True), images)


def test_classes_are_given_by_number_or_name_and_take_turns(conditional: WaveletGenerator) -> None:
    def network(labels: list[int]) -> Tensor:
        z = counted.normal(0, "latent/evaluate", range(16), 8)
        with torch.no_grad():
            return to_uint8(conditional(z, torch.tensor(labels * 16)[:16]))

    assert torch.equal(conditional.sample(16, classes=2), network([2]))
    assert torch.equal(conditional.sample(16, classes="a, b"), network([2]))
    numbers: list[Any] = [np.int64(2), torch.tensor(2), np.array([2]), [np.int8(2)]]
    for number in numbers:
        assert torch.equal(conditional.sample(16, classes=number), network([2]))
    choices: list[Any] = ["dog,cat", ["dog", 0], (1, 0), np.array([1, 0]), torch.tensor([1, 0]), iter([1, 0])]
    for choice in choices:
        assert torch.equal(conditional.sample(16, classes=choice), network([1, 0]))
    assert not torch.equal(network([1]), network([0]))


def test_without_known_frequencies_all_classes_are_equally_likely() -> None:
    torch.manual_seed(0)
    generator = settle(WaveletGenerator(z_dim=8, width=4, num_classes=3))
    labels = counted.categories(5, "class/evaluate", range(16), [1, 1, 1])
    with torch.no_grad():
        expected = to_uint8(generator(counted.normal(5, "latent/evaluate", range(16), 8), labels))
    assert torch.equal(generator.sample(16, seed=5), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count = 0"),
        ({"count": 1, "seed": -1}, "seed = -1"),
        ({"count": 1, "seed": 2**64}, "seed = 18446744073709551616"),
        ({"count": 1, "classes": 3}, "there is no class '3'; the classes are 0 to 2 .cat, dog, a, b"),
        ({"count": 1, "classes": ["cow"]}, "there is no class 'cow'"),
        ({"count": 1, "classes": -1}, "there is no class '-1'"),
        ({"count": 1, "classes": []}, "classes is empty; give at least one class"),
    ],
)
def test_bad_arguments_of_sample_are_one_line(conditional: WaveletGenerator, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        conditional.sample(**arguments)
    assert "\n" not in str(error.value)


def test_autocast_does_not_change_images_and_weights_may_have_16_bits(plain: Path) -> None:
    generator = WaveletGenerator.from_pretrained(plain)
    images = generator.sample(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generator.sample(2), images)
    difference = generator.bfloat16().sample(2).int() - images.int()
    assert 0 < difference.abs().max() <= 16  # gray levels; bfloat16 has 8 significant bits


@pytest.mark.parametrize("arguments", [{"count": 1.0}, {"count": "1"}, {"count": 1, "seed": 1.5}])
def test_counts_and_seeds_are_integers(conditional: WaveletGenerator, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        conditional.sample(**arguments)
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        conditional.sample(1, classes=[1.5])  # type: ignore[list-item]


def test_a_generator_without_classes_takes_none(plain: Path) -> None:
    with pytest.raises(UsageError, match=r"classes = 1: this generator has no classes .num_classes = 0."):
        WaveletGenerator.from_pretrained(plain).sample(1, classes=1)


def test_what_is_saved_loads_to_the_same_bits_and_is_a_snapshot(snapshot: Path, tmp_path: Path) -> None:
    generator, before = WaveletGenerator.from_pretrained(snapshot), load_snapshot(snapshot)
    generator.save_pretrained(tmp_path / "deep" / "saved")
    assert (tmp_path / "deep/saved/model.safetensors").read_bytes() == (snapshot / "model.safetensors").read_bytes()
    loaded, after = WaveletGenerator.from_pretrained(tmp_path / "deep/saved"), load_snapshot(tmp_path / "deep/saved")
    assert not loaded.training
    state, expected = loaded.state_dict(), load_file(snapshot / "model.safetensors")
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert torch.equal(loaded.sample(5), generator.sample(5))
    facts = ("config", "nimg", "weights_sha256", "index_digest", "half_life_kimg", "classes")
    assert [getattr(after, name) for name in facts] == [getattr(before, name) for name in facts]


def test_the_command_samples_from_a_saved_folder(plain: Path, wavegan: Command, tmp_path: Path) -> None:
    generator = WaveletGenerator.from_pretrained(plain)
    generator.save_pretrained(tmp_path / "saved")
    outcome = wavegan("sample", "--snapshot", tmp_path / "saved", "--out", tmp_path / "grid.png", "--device", "cpu")
    assert outcome.returncode == 0, outcome.stderr
    assert torch.equal(picture(tmp_path / "grid.png"), picture(tmp_path / "saved/samples.png"))
    assert torch.equal(picture(tmp_path / "grid.png")[:, :32, 32:64], generator.sample(2)[1])


@pytest.mark.parametrize("model", [*MODELS, "by position", "residual"])
def test_a_generator_made_by_hand_loads_to_the_same_bits_but_is_not_a_snapshot(
    model: str, wavegan: Command, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    generator = {
        "by position": lambda: WaveletGenerator(64, 6, 2, 4, attention_at=[8, 16]),
        "residual": lambda: WaveletGenerator(z_dim=8, width=4, backbone="residual"),
    }.get(model, lambda: WaveletGenerator(z_dim=8, width=4, **MODELS[model]))()
    settle(generator).save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "samples.png",
    ]  # fmt: skip
    loaded = WaveletGenerator.from_pretrained(tmp_path / "saved")
    assert loaded.training_info is None
    assert torch.equal(loaded.sample(3), generator.sample(3))
    outcome = wavegan("sample", "--snapshot", tmp_path / "saved", "--out", tmp_path / "grid.png")
    refused(outcome, "is not a snapshot: it has no config.yaml", "WaveletGenerator.from_pretrained")


def test_changed_weights_are_saved_without_the_training_that_did_not_make_them(plain: Path, tmp_path: Path) -> None:
    generator = WaveletGenerator.from_pretrained(plain)
    assert all(parameter.requires_grad for parameter in generator.parameters())
    with torch.no_grad():
        generator.lam.add_(1e-6)
    generator.save_pretrained(tmp_path / "saved")
    assert not {"snapshot.json", "config.yaml"} & {path.name for path in (tmp_path / "saved").iterdir()}
    assert torch.equal(WaveletGenerator.from_pretrained(tmp_path / "saved").lam, generator.lam)
    assert "kimg" not in (tmp_path / "saved/README.md").read_text()


def test_a_copy_keeps_its_arguments(tmp_path: Path) -> None:
    generator = copy.deepcopy(WaveletGenerator(64, z_dim=6, width=4))  # as an EMA is made
    generator.save_pretrained(tmp_path / "saved")
    assert WaveletGenerator.from_pretrained(tmp_path / "saved").sample(1).shape == (1, 3, 64, 64)


def test_an_architecture_that_could_not_be_loaded_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    changed = WaveletGenerator(z_dim=8, width=4)
    changed.base = WaveletGenerator(z_dim=8, width=6).base
    for generator in (changed, WaveletGenerator(z_dim=8, width=4).double()):
        with pytest.raises(UsageError, match="layers or dtypes of this generator are not those that its arguments describe"):
            generator.save_pretrained(tmp_path / "saved")
    width: Any = np.int64(6)  # not JSON, so config.json could not hold it
    with pytest.raises(UsageError, match="width"):
        WaveletGenerator(z_dim=8, width=width)
    with pytest.raises(UsageError, match="resample"):
        WaveletGenerator(z_dim=8, width=4, resample="haar").save_pretrained(tmp_path / "saved")
    broken = WaveletGenerator(z_dim=8, width=4)
    broken.lam.data.fill_(torch.nan)
    with pytest.raises(WaveganError, match="not finite"):
        broken.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_a_saved_folder_is_replaced_as_a_whole_and_other_files_are_safe(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, by_hand = WaveletGenerator.from_pretrained(plain), WaveletGenerator(z_dim=8, width=6)
    (tmp_path / "saved").mkdir()
    for each in (generator, by_hand):
        each.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/snapshot.json").exists()
    assert WaveletGenerator.from_pretrained(str(tmp_path / "saved")).width == 6
    files = {path.name: path.read_bytes() for path in plain.iterdir()}
    (tmp_path / "saved/notes.txt").write_text("mine")
    for folder, reason in (
        (plain, "other files"),
        (tmp_path / "saved", "other files"),
        (plain / "config.yaml", "is not a folder"),
        (plain / "config.yaml/below", "save_pretrained: .*config.yaml is not a folder; choose another name"),
    ):
        with pytest.raises(UsageError, match=reason):
            generator.save_pretrained(folder)
    assert (tmp_path / "saved/notes.txt").read_text() == "mine"
    assert {path.name: path.read_bytes() for path in plain.iterdir()} == files
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="working folder"):
        generator.save_pretrained(".")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def make_newer(folder: Path) -> None:
    (folder / "config.yaml").write_text("data: {index: x}\nmodel: {fourier: 1}\n")
    edit(folder / "snapshot.json", **{"wavegan-dist": "9.1"})


DAMAGES: dict[str, Any] = {
    "nothing": (lambda f: [path.unlink() for path in f.iterdir()], "neither snapshot.json nor config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), r"model\.safetensors"),
}
OF_A_SNAPSHOT: dict[str, Any] = {
    "flipped bit": (lambda f: flip_last_byte(f / "model.safetensors"), r"model\.safetensors is damaged: its sha256"),
    "no config.yaml": (lambda f: (f / "config.yaml").unlink(), "it has no config.yaml"),
    "bad snapshot.json": (lambda f: (f / "snapshot.json").write_text("[1"), r"snapshot\.json is damaged"),
    "newer version": (
        make_newer,
        r"config\.yaml: unknown key 'model\.fourier'.*; wavegan-dist 9\.1 wrote it, this is",
    ),
}
OF_SAVED: dict[str, Any] = {
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json is not valid"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"config\.json is not a config of a generator"),
    "other model": (
        lambda f: (f / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "n_layer": 12}'),
        r"config\.json is not of a generator of wavegan-dist: it has no 'resolution'",
    ),
    "newer version": (
        lambda f: edit(f / "config.json", fourier=1),
        r"config\.json: unknown key 'fourier'; a newer version of wavegan-dist may have written it: pip install --upgrade",
    ),
    "bad value": (lambda f: edit(f / "config.json", resolution=33), r"resolution: 33 is not a power of two"),
    "wrong type": (lambda f: edit(f / "config.json", z_dim="many"), r"z_dim = 'many'"),
    "other shapes": (lambda f: edit(f / "config.json", width=6), r"model\.safetensors does not fit config\.json"),
    "other weights": (
        lambda f: save_file({"lam": torch.zeros(())}, f / "model.safetensors"),
        r"model\.safetensors does not fit config\.json",
    ),
}


@pytest.mark.parametrize(("damage", "message"), [*DAMAGES.values(), *OF_A_SNAPSHOT.values()])
def test_a_damaged_snapshot_is_one_line(damage: Any, message: str, tmp_path: Path) -> None:
    damage(write_snapshot(tmp_path / "kimg-000002"))
    with pytest.raises(WaveganError, match=message) as error:
        WaveletGenerator.from_pretrained(tmp_path / "kimg-000002")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("damage", "message"), [*DAMAGES.values(), *OF_SAVED.values()])
def test_a_damaged_saved_folder_is_one_line(damage: Any, message: str, tmp_path: Path) -> None:
    WaveletGenerator(z_dim=8, width=4).save_pretrained(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(WaveganError, match=message) as error:
        WaveletGenerator.from_pretrained(tmp_path / "saved")
    assert "\n" not in str(error.value)


def peak_memory() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("backbone", ["dcgan", "residual"])
@pytest.mark.parametrize("size", [{"width": 65536}, {"z_dim": 2**20}, {"num_classes": 2**20}], ids=str)
def test_settings_of_a_huge_model_do_not_fill_the_memory(backbone: Any, size: dict[str, int], tmp_path: Path) -> None:
    WaveletGenerator(z_dim=8, width=4, backbone=backbone).save_pretrained(tmp_path / "saved")
    edit(tmp_path / "saved" / "config.json", **size)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present size
    before = peak_memory()
    with pytest.raises(WaveganError, match=r"does not fit config\.json: the settings are those of a larger model"):
        WaveletGenerator.from_pretrained(tmp_path / "saved")
    assert peak_memory() - before < 2**18  # KiB

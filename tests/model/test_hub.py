"""Generators on the Hugging Face Hub, against an HTTP server in its place; the model card."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants

from tests.model.hub_server import Hub, running_hub
from tests.model.snapshots import write_snapshot
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluation_result import EvaluationProtocol, EvaluationResult
from wavegan_dist.model import WaveletGenerator, load_snapshot


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with an evaluated snapshot, whose settings and command name this machine's folders and a password."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["/home/alice/wavegan_dist/__main__.py", "train", "--config", "/home/alice/my.yaml", "model.width=4"]
        )
        settings = {
            "data": {"index": "/home/alice/shards/index.json", "cache": "/scratch/alice/cache"},
            "tracking": {"uri": "http://alice:hunter2@mlflow.example:5000"},
        }
        snapshot = write_snapshot(tmp_path / "run/snapshots/kimg-000002", settings, num_classes=3)
    evaluation(snapshot).write(tmp_path / "run/evaluations/kimg-000002.json")
    return tmp_path / "run"


def evaluation(snapshot: Path) -> EvaluationResult:
    protocol = EvaluationProtocol(
        nimg=2000, snapshot=str(snapshot), snapshot_sha256=load_snapshot(snapshot).weights_sha256, images_real=200,
        images_generated=300, image_size=32, seed=7, ema=True, index_digest="1" * 64, wavegan_dist="0.1", git_commit="abc",
        code_digest="2" * 64, torch="2.9", device="cpu", metrics={"fwd": {}, "kid": {}},
    )  # fmt: skip
    return EvaluationResult(
        metrics={"fwd": 0.125, "kid": 0.25}, floors={"fwd": 0.0625}, intervals={"kid": (0.1, 0.3)}, tables={}, protocol=protocol
    )


def test_what_is_pushed_comes_back_to_the_same_bits(hub: Hub, run: Path) -> None:
    generator = WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002")
    url = generator.push_to_hub("user/repo", license="CC-BY-4.0", token="hf_token")
    assert url == f"{hub.address}/user/repo/commit/{1:040x}"
    loaded = WaveletGenerator.from_pretrained("user/repo")
    assert torch.equal(loaded.sample(5), generator.sample(5))
    assert loaded.training_info.classes == generator.training_info.classes
    assert hub.repositories["user/repo"][-1].keys() == {
        ".gitattributes", "README.md", "config.json", "config.yaml", "evaluation.json", "model.safetensors", "samples.png",
        "snapshot.json",
    }  # fmt: skip
    card = hub.repositories["user/repo"][-1]["README.md"].decode()
    assert 'from_pretrained("user/repo")' in card
    loaded.push_to_hub("user/second", token="hf_token")  # the metrics survive a second journey
    assert hub.repositories["user/second"][-1]["evaluation.json"] == hub.repositories["user/repo"][-1]["evaluation.json"]


def test_a_second_push_leaves_no_file_of_the_first(hub: Hub, run: Path) -> None:
    WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002").push_to_hub("user/repo", token="hf_token")
    other = WaveletGenerator(z_dim=8, width=6)
    other.push_to_hub("user/repo", token="hf_token")
    assert hub.repositories["user/repo"][-1].keys() == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "samples.png",
    }  # fmt: skip
    assert torch.equal(WaveletGenerator.from_pretrained("user/repo").sample(1), other.sample(1))
    first = WaveletGenerator.from_pretrained("user/repo", revision=f"{1:040x}")
    assert first.width == 4


def test_a_push_that_fails_here_creates_no_repository(hub: Hub) -> None:
    with pytest.raises(UsageError, match="dtypes"):
        WaveletGenerator(z_dim=8, width=4).double().push_to_hub("user/repo", token="hf_token")
    assert not hub.requests


def test_folders_and_names_of_no_repository_never_use_the_network(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    shutil.copytree("snapshots/kimg-000002", "user/repo")
    assert WaveletGenerator.from_pretrained("user/repo").width == 4  # a folder comes first
    WaveletGenerator.from_pretrained("user/repo").save_pretrained("mine/repo")
    assert WaveletGenerator.from_pretrained("mine/repo").width == 4
    for name in ("repo", "./user/none", "/user/none", "user/none/", "user/none/kimg-000001", "../none", Path("user/none")):
        with pytest.raises(UsageError, match=r"neither a folder nor a repository on the Hugging Face Hub .USER/NAME.$"):
            WaveletGenerator.from_pretrained(name)
    with pytest.raises(UsageError, match=r"config\.yaml is a file; give the folder"):
        WaveletGenerator.from_pretrained("user/repo/config.yaml")
    assert not hub.requests


def test_a_snapshot_that_was_uploaded_as_it_is_loads(hub: Hub, run: Path) -> None:
    hub.upload("user/repo", {path.name: path.read_bytes() for path in (run / "snapshots/kimg-000002").iterdir()})
    assert WaveletGenerator.from_pretrained("user/repo").training_info.nimg == 2000


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b'{"architectures": ["GPT2LMHeadModel"]}'}, r"is not of a generator of wavegan-dist: it has no"),
        ({"config.json": b"\xff"}, r"config\.json is not valid"),
        ({"pytorch_model.bin": b"pickle"}, r"user/repo does not hold a generator .*neither snapshot\.json nor config\.json"),
    ],
)
def test_of_a_repository_that_is_not_ours_no_weights_are_downloaded(hub: Hub, files: dict[str, bytes], message: str) -> None:
    hub.upload("user/repo", {"model.safetensors": b"large", **files})
    with pytest.raises(WaveganError, match=message) as error:
        WaveletGenerator.from_pretrained("user/repo")
    assert "\n" not in str(error.value)
    assert not [request for request in hub.requests if "safetensors" in request or "pytorch_model" in request]


def test_a_repository_that_lacks_something_is_one_line(hub: Hub, run: Path) -> None:
    hub.upload("user/repo", {"config.json": b'{"resolution": 32, "z_dim": 8, "width": 4}'})
    for name, revision, message in (
        ("user/none", None, "user/none is not a folder here; .* there is none that you may use; check the name, or log in"),
        ("user/repo", "v9", "user/repo is not a folder here.* Revision Not Found"),
        ("user/repo", None, r"user/repo is not a folder here.* Entry Not Found .*model\.safetensors"),
        ("user/re--po", None, "user/re--po is not a folder here.* Cannot have -- or .. in repo_id"),
    ):
        with pytest.raises(WaveganError, match=message) as error:
            WaveletGenerator.from_pretrained(name, revision=revision)
        assert "\n" not in str(error.value)


def test_without_the_hub_only_what_was_downloaded_before_loads(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002")
    generator.push_to_hub("user/repo", token="hf_token")
    WaveletGenerator.from_pretrained("user/repo")
    asked = len(hub.requests)
    assert torch.equal(WaveletGenerator.from_pretrained("user/repo", local_files_only=True).sample(1), generator.sample(1))
    assert len(hub.requests) == asked
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # no server
    assert WaveletGenerator.from_pretrained("user/repo").width == 4
    for push, message in (
        (False, "it was not downloaded before, and the Hub cannot be reached"),
        (True, "user/other on the Hug"),
    ):
        with pytest.raises(WaveganError, match=message) as error:
            generator.push_to_hub("user/other", token="x") if push else WaveletGenerator.from_pretrained("user/other")
        assert "\n" not in str(error.value)


def test_the_card_says_what_the_model_is_and_what_it_is_worth(run: Path, tmp_path: Path) -> None:
    WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002").save_pretrained(tmp_path / "saved", license="CC-BY-4.0")
    card = ModelCard.load(tmp_path / "saved/README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "wavegan-dist")
    assert card.data.pipeline_tag == "unconditional-image-generation"
    for line in (
        "| images shown | 2 kimg (thousands of real images) |",
        "| half-life of the weights' moving average (EMA) | 3.5 kimg |",
        f"| digest of the training data | `{'1' * 64}` |",
        "| classes | cat, dog, a, b |",
        "    wavegan train --config my.yaml model.width=4",
        "| `fwd` | 0.125 | 0.0625 | - |",
        "| `kid` | 0.25 | - | 0.1 to 0.3 |",
        "Protocol: 200 real and 300 generated images of 32 px,",
    ):
        assert line in card.text.splitlines(), line
    assert "to RGB images of 32 x 32 pixels" in card.text


def test_no_file_of_a_saved_folder_names_a_folder_of_this_machine_or_a_password(run: Path, tmp_path: Path) -> None:
    WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002").save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.yaml", "snapshot.json", "evaluation.json", "README.md"} <= names
    for path in (tmp_path / "saved").iterdir():
        for secret in (b"alice", b"hunter2", str(tmp_path).encode()):
            assert secret not in path.read_bytes(), path.name
    assert EvaluationResult.read(tmp_path / "saved/evaluation.json").metrics == {"fwd": 0.125, "kid": 0.25}
    assert load_snapshot(tmp_path / "saved").config.data.index == "index.json"


def test_a_saved_folder_of_several_sets_loads_although_their_folders_are_left_out(tmp_path: Path) -> None:
    sets = [{"index": f"/home/alice/{name}/index.json", "weight": weight} for name, weight in (("photos", 3), ("birds", 1))]
    snapshot = write_snapshot(tmp_path / "snapshot", {"data": {"index": sets}})
    WaveletGenerator.from_pretrained(snapshot).save_pretrained(tmp_path / "saved")
    saved = load_snapshot(tmp_path / "saved").config.data.sets
    assert [(one.index, one.weight) for one in saved] == [("index.json", 3), ("index.json", 1)]
    assert "alice" not in (tmp_path / "saved/config.yaml").read_text()


def test_an_evaluation_of_other_weights_is_not_in_the_card(run: Path, tmp_path: Path) -> None:
    path = run / "evaluations/kimg-000002.json"
    result = EvaluationResult.read(path)
    result.model_copy(update={"protocol": result.protocol.model_copy(update={"snapshot_sha256": "0" * 64})}).write(path)
    WaveletGenerator.from_pretrained(run / "snapshots/kimg-000002").save_pretrained(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved/README.md")
    assert "fwd" not in card.text
    assert "no `wavegan evaluate` of this snapshot was found" in card.text
    assert card.data.license is None
    assert "The author states none." in card.text

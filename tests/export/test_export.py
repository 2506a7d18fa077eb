"""Exported files compute what the generator computes; a file that does not is never written."""

import copy
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.export.models import MODELS
from tests.helpers import Command, refused
from wavegan_dist import __version__, counted
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.export.export import TOLERANCE, check_batches, export
from wavegan_dist.export.formats import METADATA, OPSET, Run, find_formats, load_pt2
from wavegan_dist.export.program import generator_inputs
from wavegan_dist.model.snapshot import Snapshot

BATCHES = [1] * 100 + [7] * 28 + [64] * 11  # 1000 latents
LOADER = """
import sys, torch
sys.modules["wavegan_dist"] = None  # an import of it fails
for name, path in zip(sys.argv[2::2], sys.argv[3::2]):
    inputs = torch.load("inputs.pt")[name]
    run = torch.export.load(path).module()
    torch.save([torch.cat([run(*part) for part in zip(*(x.split(batch) for x in inputs))]) for batch in (1, 7, 64)], name)
"""


def latents(snapshot: Snapshot, count: int) -> tuple[Tensor, ...]:
    return generator_inputs(snapshot.generator, counted.normal(3, "latent/test", range(count), 16))


@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_computes_the_images_of_1000_latents_as_pytorch_does(
    exported: dict[str, Path], snapshots: dict[str, Snapshot], name: str
) -> None:
    inputs = latents(snapshots[name], sum(BATCHES))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported[name] / "generator.onnx", options)
    images = []
    for part in zip(*(tensor.split(BATCHES) for tensor in inputs), strict=True):
        feed = dict(zip(("z", "labels"), (tensor.numpy() for tensor in part), strict=False))
        images.append(torch.from_numpy(session.run(["images"], feed)[0]))
    torch.testing.assert_close(torch.cat(images), snapshots[name].generator(*inputs), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_pt2_files_run_with_pytorch_alone(exported: dict[str, Path], snapshots: dict[str, Snapshot], tmp_path: Path) -> None:
    inputs = {name: latents(snapshot, 130) for name, snapshot in snapshots.items()}
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [argument for name in MODELS for argument in (name, str(exported[name] / "generator.pt2"))]
    subprocess.run([sys.executable, "-c", LOADER, "_", *files], cwd=tmp_path, check=True, timeout=120)
    for name, snapshot in snapshots.items():
        expected = snapshot.generator(*inputs[name])
        for images in torch.load(tmp_path / name):
            torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_an_onnx_file_has_standard_operators_its_origin_and_a_batch_of_any_size(
    exported: dict[str, Path], snapshots: dict[str, Snapshot], name: str
) -> None:
    model = onnx.load(exported[name] / "generator.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    settings = snapshots[name].config.model
    side, labels = settings.resolution, {"labels": ["batch"]} if settings.num_classes else {}
    assert shapes == {"z": ["batch", 16], **labels, "images": ["batch", 3, side, side]}
    assert {entry.key: entry.value for entry in model.metadata_props} == metadata(snapshots[name])


def metadata(snapshot: Snapshot) -> dict[str, str]:
    settings = snapshot.config.model
    return {
        "resolution": str(settings.resolution),
        "z_dim": "16",
        "num_classes": str(settings.num_classes),
        "nimg": "2000",
        "snapshot_sha256": snapshot.weights_sha256,
        "wavegan_dist": __version__,
    }


def test_a_pt2_file_holds_its_origin(exported: dict[str, Path], snapshots: dict[str, Snapshot]) -> None:
    files = {METADATA: ""}
    torch.export.load(exported["dcgan"] / "generator.pt2", extra_files=files)
    assert json.loads(files[METADATA]) == metadata(snapshots["dcgan"])


def test_files_hold_no_path_of_this_machine(exported: dict[str, Path]) -> None:
    for file in exported["residual-haar"].iterdir():
        assert b".py" not in file.read_bytes()


def shifted(difference: float) -> Callable[[bytes], Run]:
    """Return a `load` whose images differ from those of the file by `difference`."""

    def load(content: bytes) -> Run:
        run = load_pt2(content)
        return lambda *inputs: run(*inputs) + difference

    return load


@pytest.mark.parametrize("difference", [-1.1 * TOLERANCE, float("nan")])
def test_a_file_that_computes_something_else_is_not_written_nor_any_other(
    snapshots: dict[str, Snapshot], tmp_path: Path, difference: float
) -> None:
    (good,) = find_formats("pt2")
    bad = replace(good, file="other.pt2", load=shifted(difference))
    (tmp_path / "other.pt2").write_text("old")
    with pytest.raises(WaveganError, match=r"other\.pt2: not written, because its images differ") as error:
        export(snapshots["residual-base"], tmp_path, [good, bad])
    assert error.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt2"]
    assert (tmp_path / "other.pt2").read_text() == "old"
    export(snapshots["residual-base"], tmp_path, [replace(bad, load=shifted(0.5 * TOLERANCE))])
    assert (tmp_path / "other.pt2").stat().st_size > 10_000


def test_weights_that_are_not_finite_are_refused(snapshots: dict[str, Snapshot], tmp_path: Path) -> None:
    snapshot = snapshots["residual-base"]
    generator = copy.deepcopy(snapshot.generator)
    next(generator.parameters()).fill_(float("nan"))
    with pytest.raises(WaveganError, match="not finite: the weights are unusable"):
        export(replace(snapshot, generator=generator), tmp_path, find_formats("pt2"))
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_file_and_says_how_far_it_is_from_pytorch(
    wavegan: Command, snapshots: dict[str, Snapshot], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "folder"
    outcome = wavegan("export", "--snapshot", snapshots["residual-base"].path, "--out", out, "--format", "pt2")
    assert (outcome.returncode, outcome.stdout) == (0, f"{out}/generator.pt2\n")
    assert [path.name for path in out.iterdir()] == ["generator.pt2"]
    converting, checked = outcome.stderr.splitlines()
    assert converting.endswith(f"{out}/generator.pt2: converting the generator")
    assert re.search(r"pt2: 0\.\d MB; pixels of 33 latents differ from PyTorch's by at most \S+$", checked)


def test_wrong_use_is_one_line_and_writes_nothing(wavegan: Command, snapshots: dict[str, Snapshot], tmp_path: Path) -> None:
    snapshot, out = snapshots["residual-base"].path, tmp_path / "out"
    (tmp_path / "file").touch()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return wavegan("export", *arguments)

    refused(
        run("--snapshot", snapshot, "--out", out, "--format", "onnx,torchscript"), "--format torchscript", "onnx-uint8, pt2"
    )
    refused(run("--snapshot", snapshot, "--out", out, "--format", ""), "no such format")
    refused(run("--snapshot", tmp_path, "--out", out), f"{tmp_path} is not a snapshot")
    refused(run("--snapshot", snapshot), "--out")
    for place in ("file", "file/below"):
        outcome = run("--snapshot", snapshot, "--out", tmp_path / place, "--format", "pt2")
        refused(outcome, f"--out {tmp_path / place}: {tmp_path / 'file'} is not a folder; choose another name")
        assert "converting" not in outcome.stderr  # refused before the work
    refused(run("--snapshot", snapshot, "--out", tmp_path / "x.onnx"), "x.onnx is the name of a file; leave out .onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    assert [format.file for format in find_formats("pt2, pt2")] == ["generator.pt2"]
    with pytest.raises(UsageError, match=r"--format onnx needs onnxscript, .*: pip install 'wavegan-dist\[export\]'"):
        find_formats("pt2,onnx")


def test_a_generator_above_the_limit_of_onnx_is_refused(
    snapshots: dict[str, Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegan_dist.export.formats.MAX_ONNX_BYTES", 1000)
    with pytest.raises(UsageError, match=r"at most 2 GB.*--format pt2"):
        export(snapshots["residual-base"], tmp_path, find_formats("onnx"))
    assert not list(tmp_path.iterdir())


def test_the_check_of_large_images_takes_small_batches() -> None:
    assert [check_batches(resolution) for resolution in (32, 256, 512, 1024)] == [(1, 32), (1, 32), (1, 8), (1, 2)]

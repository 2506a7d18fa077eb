"""Fréchet distance and KID on the features of a trained network, through torch-fidelity.

The distance is named FID only with the Inception weights that define it; with EfficientNet-Lite0 it is
`fd_efflite0@128`. Both depend strongly on the number of images: never compare across counts.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.files import sha256

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
CPU_CHUNK = 8  # twice as fast as 64: activations stay in the cache and below malloc's threshold for fresh pages


@dataclass(frozen=True)
class Extractor:
    """A frozen network: uint8 [B, 3, H, W] -> features [B, dims]."""

    name: str
    module: nn.Module
    dims: int
    protocol: dict[str, Any]


class Features:
    """The features of the images seen, float32 on the CPU."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.chunks: list[Tensor] = []

    def update(self, images: Tensor) -> None:
        """Look at uint8 images [B, 3, H, W] on the extractor's device."""
        with torch.inference_mode():
            for chunk in images.split(CPU_CHUNK if images.device.type == "cpu" else len(images)):
                (features,) = self.extractor.module(chunk)
                self.chunks.append(features.float().cpu())

    def all(self) -> Tensor:
        """float32 [N, dims] in the order of arrival."""
        return torch.cat(self.chunks)


class FeatureDistance:
    """Fréchet distance and/or KID (Heusel et al. 2017; Binkowski et al. 2018) by torch-fidelity's own functions.

    Args:
        extractor: gives the features.
        frechet: the name under which the Fréchet distance is reported; None: not wanted.
        kernel: the same for KID.
        seed: of KID's subsets.
    """

    def __init__(self, extractor: Extractor, frechet: str | None, kernel: str | None, seed: int = 0) -> None:
        self.extractor, self.frechet, self.kernel, self.seed = extractor, frechet, kernel, seed
        self.name = frechet or kernel or extractor.name
        self.minimum = extractor.dims + 1 if frechet else 2  # a covariance of fewer images than features is singular
        self.real = Features(extractor)
        self.generated = Features(extractor)

    def result(self) -> Outcome:
        """Compare by the measures that were asked for."""
        real, generated = self.real.all(), self.generated.all()
        metrics, protocol = {}, {"extractor": self.extractor.name, **self.extractor.protocol}
        if self.frechet:
            metrics[self.frechet] = frechet_distance(real, generated)
        if self.kernel:
            subset = min(KID_SUBSET_SIZE, len(real), len(generated))
            metrics[self.kernel] = kernel_distance(real, generated, subset, self.seed)
            protocol |= {"kid_subsets": KID_SUBSETS, "kid_subset_size": subset}
        return Outcome(metrics, protocol=protocol)


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """torch-fidelity's Fréchet distance between features [N, D] and [M, D]."""
    fid = _require("torch_fidelity.metric_fid")
    statistics = [fid.fid_features_to_statistics(features) for features in (real, generated)]
    return float(fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID])


def kernel_distance(real: Tensor, generated: Tensor, subset: int, seed: int) -> float:
    """torch-fidelity's KID between features [N, D] and [M, D], mean over 100 random subsets of that size."""
    kid = _require("torch_fidelity.metric_kid")
    options = {"kid_subsets": KID_SUBSETS, "kid_subset_size": subset, "rng_seed": seed, "verbose": False}
    return float(kid.kid_features_to_metric(real, generated, **options)[kid.KEY_METRIC_KID_MEAN])


def efflite0(device: torch.device | str = "cpu") -> Extractor:
    """EfficientNet-Lite0 at 128 px, whose ImageNet weights come in a package. Raises UsageError without the extra `eval`."""
    module = _require("wavegan_dist.evaluate.efflite0")
    protocol = _protocol(module.weights_path(), f"bilinear, antialiased, float32, to {module.SIDE} px")
    return Extractor(module.NAME, _create(module.NAME, module.LAYER, device), int(module.LAYER), protocol)


def inception(weights: Path | None = None, device: torch.device | str = "cpu") -> Extractor:
    """FID's Inception-v3, from a file that is never downloaded.

    torch-fidelity unpickles it, so its hash is checked before.

    Raises:
        UsageError: the file is missing or is another one, or the extra `eval` is not installed.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.is_file():
        raise UsageError(
            f"fid: the Inception weights {path} are missing; get {INCEPTION_FILE} from torch-fidelity's release v0.2.0 "
            "and put it there, or give its path with --inception-weights"
        )
    if (found := sha256(path)) != INCEPTION_SHA256:
        raise UsageError(f"fid: {path} is not {INCEPTION_FILE}: its sha256 is {found}, not {INCEPTION_SHA256}; get it again")
    module = _create("inception-v3-compat", "2048", device, feature_extractor_weights_path=str(path))
    return Extractor("inception-v3-compat", module, 2048, _protocol(path, "bilinear as TensorFlow 1, to 299 px"))


def _create(name: str, layer: str, device: torch.device | str, **options: str) -> nn.Module:
    module: nn.Module = _require("torch_fidelity.utils").create_feature_extractor(
        name, [layer], cuda=False, verbose=False, **options
    )
    return module.to(device)


def _protocol(weights: Path, resizer: str) -> dict[str, Any]:
    version = _require("torch_fidelity").__version__
    return {"weights_sha256": sha256(weights), "resizer": resizer, "torch_fidelity": version}


def _require(name: str) -> ModuleType:
    with contextlib.suppress(ImportError):
        return __import__(name, fromlist=["_"])
    raise UsageError("fd, kid and fid need torch-fidelity: pip install 'wavegan-dist[eval]'")

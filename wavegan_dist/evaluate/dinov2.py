"""DINOv2 as a feature extractor, built by timm from the authors' checkpoint files (`dinov2_vit{s,b,l}14_pretrain.pth`).

Import this module only if the extra `eval` is installed.
"""

from pathlib import Path
from typing import cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from wavegan_dist.errors import UsageError

SIDE = 224
VERSION = timm.__version__
SIZES = {384: "small", 768: "base", 1024: "large"}  # embedding width -> name
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet statistics, with which DINOv2 was trained


class DinoV2(nn.Module):
    """Computes DINOv2's class token after the last norm: uint8 [B, 3, H, W] of any size -> a tuple with float32 [B, dims]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network, self.dims = network, int(network.num_features)
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return a tuple with the class tokens, float32 [B, dims], of images uint8 [B, 3, H, W].

        The images are resized to 224 px (bicubic, antialiased, float32) and normalized by ImageNet's statistics.
        """
        resized = F.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        return (self.network((resized - self.mean) / self.std),)


def load(path: Path) -> tuple[str, DinoV2]:
    """Load a checkpoint; return the extractor's name, such as `dinov2_vits14@224`, and the frozen network (eval mode, CPU).

    Raises:
        UsageError: the file cannot be read or is no checkpoint of DINOv2 small, base or large without registers.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        size = SIZES[state["cls_token"].shape[-1]]
        model = timm.create_model(f"vit_{size}_patch14_dinov2", pretrained=False, num_classes=0, img_size=SIDE)
        network = cast(VisionTransformer, model)
        network.load_state_dict(checkpoint_filter_fn(state, network))
    except Exception as error:  # torch.load and timm raise errors without a common base class
        raise UsageError(
            f"dinov2: {path} is not a checkpoint of DINOv2 without registers ({type(error).__name__}); "
            "give the authors' dinov2_vits14_pretrain.pth, vitb14 or vitl14"
        ) from error
    module = DinoV2(network).eval().requires_grad_(False)
    return f"dinov2_vit{size[0]}14@{SIDE}", module

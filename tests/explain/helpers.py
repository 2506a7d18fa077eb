"""Snapshots of untrained models, and the content of a page."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from typing_extensions import override

from wavegan_dist.classes import Classes
from wavegan_dist.config import parse
from wavegan_dist.explain.measure import Explanation
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import save_snapshot

MODELS: dict[str, dict[str, Any]] = {
    "dcgan": {},
    "pyramid": {"resolution": 64, "levels": 3, "lam": "sigmoid"},
    "residual": {"backbone": "residual", "attention_at": [], "levels": 2},
    "classes": {"num_classes": 3},
    "base only": {"base_only": True},
}
VOID = {"meta", "link", "img", "br", "input"}


def make_snapshot(path: Path, names: tuple[str, ...] = ("zero", "one", "two"), **model: Any) -> Path:
    """Write a snapshot of an untrained generator with a lam of about 0.3, and return its folder."""
    torch.manual_seed(0)
    settings = {"width": 4, "z_dim": 8, "resolution": 32, **model}
    weights = {"low": 0, "high": 0} if settings.get("base_only") else {}
    experiment = parse({"data": {"index": "x"}, "model": settings, "loss": {"weights": weights}}, "test")
    generator = build_generator(experiment)
    if generator.low is not None:
        generator.lam.data.fill_(-0.8 if settings.get("lam") == "sigmoid" else 0.3)
    tensors = generator.state_dict()
    classes = Classes([5, 1, 2], names) if settings.get("num_classes") else None
    save_snapshot(path, tensors, tensors.items(), experiment, 2000, "1" * 64, classes=classes)
    return path


class Page(HTMLParser):
    """The pictures and the text of an HTML page, whose tags must be balanced.

    Attributes:
        pictures: `alt` to uint8 array [H, W, 3] of each picture.
        text: all text, without the title, the style and scripts.
        links: values of all `src` and `href`.
        tags: the names of all tags.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: dict[str, np.ndarray] = {}
        self.text = ""
        self.links: list[str | None] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert not self._open, f"{self._open} are not closed"

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            kind, content = values["src"].split(",")
            assert kind == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                assert values["alt"] not in self.pictures
                self.pictures[values["alt"]] = np.asarray(picture.convert("RGB"))
        if tag not in VOID:
            self._open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        if not {"style", "title", "script"} & set(self._open):
            self.text += data + "\n"


def rounded(explanation: Explanation, number: int) -> np.ndarray:
    """Return the pixels of a shown image, uint8 [H, W, 3], computed with NumPy."""
    pixels = (explanation.shown.fused[number].permute(1, 2, 0).numpy() + np.float32(1)) * np.float32(127.5)
    return pixels.clip(0, 255).round().astype(np.uint8)

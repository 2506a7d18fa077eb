"""The model card of a generator: the README.md that `save_pretrained` and `push_to_hub` write."""

import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from wavegan_dist.evaluation_result import EvaluationResult
from wavegan_dist.images import images_in_grid
from wavegan_dist.markdown import code, plain
from wavegan_dist.model.hub import ARGUMENTS, SAMPLES
from wavegan_dist.model.training_info import CONFIG, EVALUATION, WEIGHTS, TrainingInfo
from wavegan_dist.redact import redacted

SAMPLE_COUNT = 64  # images in the picture of the card, fewer above 512 px

NETWORKS = (
    "three networks that are joined by the 2D Haar wavelet transform, one for an image, one for a low band, one for high bands"
)
USE = """## Use

    from wavegan_dist import WaveletGenerator    # pip install wavegan-dist

    generator = WaveletGenerator.from_pretrained("{repository}")    # or a folder with these files
    images = generator.sample(16, seed=0)    # uint8 [16, 3, {resolution}, {resolution}], RGB
"""


def model_card(
    data: ModelCardData,
    arguments: Mapping[str, Any],
    parameters: int,
    info: TrainingInfo | None,
    license: str | None,
    repository: str,
) -> ModelCard:
    """Return the model card, with the evaluation that `info.evaluation()` finds. Writes nothing.

    Args:
        data: name and tags of the library, for the metadata at the top of the card; its license is replaced by `license`.
        arguments: all arguments of the generator's constructor (`WaveletGenerator`) by name.
        parameters: number of parameters of the generator.
        info: how the generator was trained; None if that is unknown.
        license: identifier of the license; None: the author states none.
        repository: name of the repository, for the example in the card.

    Raises:
        WaveganError: the file of the evaluation is damaged.
        OSError: the file of the evaluation cannot be read.
    """
    fields = vars(data) | {"license": license.lower() if license else None}  # fields that are None are left out
    result = info.evaluation() if info else None
    parts = [
        f"---\n{ModelCardData(**fields).to_yaml()}\n---\n",
        _description(arguments, parameters),
        USE.format(repository=repository, resolution=arguments["resolution"]),
        _training(info) if info else "## Training\n\nUnknown: the generator was not saved from a snapshot of a training run.\n",
        _metrics(result) if result else "## Metrics\n\nNone: no `wavegan evaluate` of this snapshot was found.\n",
        f"## License\n\n{license or 'The author states none. Ask before you use or share these weights.'}\n",
    ]
    return ModelCard("\n".join(parts))


def _description(arguments: Mapping[str, Any], parameters: int) -> str:
    side, classes = arguments["resolution"], arguments["num_classes"]
    networks = "one network" if arguments["base_only"] else NETWORKS
    return "\n".join(
        (
            f"# Wavelet GAN for images of {side} px",
            "",
            f"![samples]({SAMPLES})",
            "",
            f"*`generator.sample({images_in_grid(SAMPLE_COUNT, side)}, seed=0)`, not selected.*",
            "",
            f"A generator of wavegan-dist: {networks}.",
            f"It maps latents of {arguments['z_dim']} standard normal numbers{f' and {classes} classes' if classes else ''}",
            f"to RGB images of {side} x {side} pixels, and has {parameters:,} parameters. `{ARGUMENTS}` holds its arguments.",
            "",
        )
    )


def _training(info: TrainingInfo) -> str:
    meta = info.meta
    packages = meta.get("packages")
    rows = {
        "images shown": f"{info.nimg / 1000:g} kimg (thousands of real images)",
        "half-life of the weights' moving average (EMA)": f"{info.half_life_kimg:g} kimg",
        "digest of the training data": code(info.index_digest),
        "classes": plain(", ".join(info.classes.names)) if info.classes else "",
        "seed": str(info.config.seed),
        "wavegan-dist": plain(f"{meta.get('wavegan-dist', 'unknown')}, commit {meta.get('git_commit', 'unknown')}"),
        "PyTorch": plain(packages.get("torch", "unknown") if isinstance(packages, dict) else "unknown"),
        f"sha256 of `{WEIGHTS}`": code(info.weights_sha256),
    }
    table = [f"| {name} | {value} |" for name, value in rows.items() if value]
    end = ("", f"All settings are in `{CONFIG}`. The command that trained it:", "", f"    {_command(meta.get('command'))}", "")
    return "\n".join(("## Training", "", "| | |", "|---|---|", *table, *end))


def _command(words: object) -> str:
    """Return the command line in snapshot.json on one line."""
    program, *arguments = map(str, words) if isinstance(words, list) and words else ["unknown"]
    program = "wavegan" if program == "__main__.py" else program  # python -m wavegan_dist
    return " ".join(redacted(shlex.join([program, *arguments])).split())


def _metrics(result: EvaluationResult) -> str:
    protocol = result.protocol
    rows = []
    for name, value in result.metrics.items():
        floor = f"{result.floors[name]:.4g}" if name in result.floors else "-"
        interval = "{:.4g} to {:.4g}".format(*result.intervals[name]) if name in result.intervals else "-"
        rows.append(f"| {code(name)} | {value:.4g} | {floor} | {interval} |")
    end = (
        "",
        "The floor is the value of the same metric between two disjoint sets of real images.",
        f"Protocol: {protocol.images_real} real and {protocol.images_generated} generated images of {protocol.image_size} px,",
        f"seed {protocol.seed}, device {plain(protocol.device)}, {'exact mode' if protocol.exact else 'large batches'},",
        f"data {code(protocol.index_digest)},",
        f"wavegan-dist {plain(protocol.wavegan_dist)}, evaluation code {code(protocol.code_digest or 'unknown')}.",
        f"`{EVALUATION}` holds the whole protocol; only values of the same protocol are comparable.",
        "",
    )
    return "\n".join(("## Metrics", "", "| metric | value | floor | 95% interval |", "|---|---|---|---|", *rows, *end))

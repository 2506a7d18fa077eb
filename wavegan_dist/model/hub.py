"""Folders and repositories of the Hugging Face Hub that hold a generator: find, check, download, upload.

model.safetensors   parameters and buffers
config.json         the arguments of `WaveletGenerator`
README.md           the model card; samples.png: its picture
config.yaml, snapshot.json, evaluation.json    only if the generator is that of a snapshot (`training_info`)

A snapshot of a run lacks config.json. If a folder has snapshot.json, config.yaml is authoritative and config.json is not read.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wavegan_dist.config import FileKind, ModelConfig
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.files import check_folder
from wavegan_dist.model.training_info import CONFIG, EVALUATION, META, WEIGHTS, find_snapshot

ARGUMENTS, CARD, SAMPLES = "config.json", "README.md", "samples.png"
FILES = (WEIGHTS, ARGUMENTS, CARD, SAMPLES, CONFIG, META, EVALUATION)
DESCRIPTION = [ARGUMENTS, CONFIG, META, EVALUATION]  # small files, read before the weights are downloaded
DISCRIMINATOR_ONLY = {"band_scale", "spectral_norm", "logit_gain"}  # fields of `model` that the generator does not use
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)  # USER/NAME
ARGUMENTS_FILE = FileKind(
    "config of a generator", "a newer version of wavegan-dist may have written it: pip install --upgrade wavegan-dist"
)


def find_folder(name: str | Path, **download: Any) -> Path:
    """Return the local folder of a generator; download it first if `name` is a repository of the Hugging Face Hub.

    Looks for a folder `name`, then for a snapshot of this name that the package contains. Only if there is neither and `name`
    is a string USER/NAME does it use the Hub or its cache. Downloads the weights only if the repository holds a generator.

    Args:
        name: a folder, the name of a snapshot that this package contains ("embedded-32"), or USER/NAME. A `Path` is never a
            repository.
        download: `revision`, `token`, `cache_dir`, `local_files_only` and `force_download` of `snapshot_download`.

    Raises:
        UsageError: `name` is neither a folder nor a repository, or is a file; the token may not read the repository; the folder
            or repository does not hold a generator; or its config.json is invalid.
        WaveganError: the Hub cannot be reached or reports another error, or the repository lacks the revision or weights.
    """
    path = find_snapshot(name)
    if path.is_dir():
        check_description(path, name)
        return path
    if path.exists():
        raise UsageError(f"{name} is a file; give the folder that contains it")
    if isinstance(name, Path) or not REPOSITORY.fullmatch(name):
        raise UsageError(f"{name} is neither a folder nor a repository on the Hugging Face Hub (USER/NAME)")
    with hub_errors(f"{name} is not a folder here; as a repository on the Hugging Face Hub"):
        folder = Path(snapshot_download(name, allow_patterns=DESCRIPTION, **download))
        check_description(folder, name)
        hf_hub_download(name, WEIGHTS, **(download | {"revision": folder.name}))  # the same commit
    return folder


def check_description(folder: Path, name: str | Path) -> None:
    """Check that `folder` has a snapshot.json, whose content is not read, or else a valid config.json.

    Args:
        folder: the folder of a generator, or the downloaded small files of a repository.
        name: name of the folder or repository, for the error message.

    Raises:
        UsageError: the folder has neither file; or it has only config.json, which cannot be read, is not of a generator, or has
            settings that are invalid or that this version does not know.
    """
    if not any((folder / file).is_file() for file in (META, ARGUMENTS)):
        raise UsageError(f"{name} does not hold a generator of wavegan-dist: it has neither {META} nor {ARGUMENTS}")
    if not (folder / META).is_file():
        read_arguments(folder)


def check_writable(path: Path) -> None:
    """Check that `save_pretrained` may write the folder `path`. Creates and deletes nothing.

    Raises:
        UsageError: `path` cannot be created or written to, or is neither empty nor a folder that `save_pretrained` wrote; or it
            is a mount point or the working folder.
    """
    check_folder(path, "save_pretrained")
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()}
    if names and (ARGUMENTS not in names or not names <= set(FILES)):  # a snapshot of a run has no config.json
        raise UsageError(f"{path} already holds other files; give the name of a new folder")
    if path.is_mount() or path.samefile(Path.cwd()):
        raise UsageError(f"{path} is a mount point or the working folder; give the name of a new folder in it")


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Raise every exception of the block as a WaveganError of one line, "WHAT: REASON"; a WaveganError passes unchanged.

    A repository that does not exist, or that the token may not read, is a UsageError. The block should only call
    huggingface_hub: all exceptions are caught, because the classes of network errors are those of the HTTP library, which
    differs between versions of huggingface_hub.
    """
    try:
        yield
    except WaveganError:
        raise
    except RepositoryNotFoundError as error:  # also the answer to people who may not read a private repository
        raise UsageError(f"{what}: there is none that you may use; check the name, or log in with `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        raise WaveganError(f"{what}: it was not downloaded before, and the Hub cannot be reached") from error
    except Exception as error:
        reason = shorten(str(error) or type(error).__name__, 400)  # on one line
        raise WaveganError(f"{what}: {reason}") from error


def read_arguments(folder: Path) -> dict[str, Any]:
    """Return all arguments of `WaveletGenerator`, by name, from config.json in `folder`, with defaults filled in.

    Raises:
        UsageError: the file cannot be read, is not that of a generator, or has settings that are invalid or that this version
            does not know.
    """
    return check_arguments(ARGUMENTS_FILE.read(folder / ARGUMENTS), str(folder / ARGUMENTS))


def check_arguments(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """Check arguments of `WaveletGenerator` and return all arguments by name.

    Defaults and limits are those of the settings `model`: num_classes = 1 is invalid, although the constructor takes it.

    Args:
        tree: the arguments by name; resolution, z_dim and width are required. Settings of the discriminator are dropped.
        source: where the arguments come from, for the error message.

    Raises:
        UsageError: an argument is missing, unknown or invalid.
    """
    if missing := {"resolution", "z_dim", "width"} - tree.keys():
        raise UsageError(f"{source} is not of a generator of wavegan-dist: it has no '{min(missing)}'")
    return generator_arguments(ARGUMENTS_FILE.validate(ModelConfig, tree, source))


def generator_arguments(model: ModelConfig) -> dict[str, Any]:
    """Return all arguments of `WaveletGenerator`, by name, for the settings `model`."""
    return model.model_dump(exclude=DISCRIMINATOR_ONLY)


@contextmanager
def limited_weights(folder: Path) -> Iterator[None]:
    """Context in which a generator is built for the weights in `folder`: settings of a larger one do not allocate its memory.

    Raises:
        WaveganError: model.safetensors is missing, or the parameters take four times as many bytes as the file.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise WaveganError(f"{folder} has no {WEIGHTS}; take another copy")
    left = 4 * path.stat().st_size

    def count(_module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.nbytes
        if left < 0:
            raise RuntimeError(f"the settings are those of a larger model, from its {name} on")

    with _weight_errors(folder):
        hook = register_module_parameter_registration_hook(count)
        try:
            yield
        finally:
            hook.remove()


def load_weights(generator: nn.Module, folder: Path) -> None:
    """Copy the tensors of model.safetensors in `folder` into the parameters and buffers of `generator`.

    Raises:
        WaveganError: the file is missing or damaged, or its names and shapes are not those of the generator's state dict. Some
            tensors may then have been copied.
    """
    with _weight_errors(folder):
        generator.load_state_dict(load_file(folder / WEIGHTS))


@contextmanager
def _weight_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        settings = CONFIG if (folder / META).is_file() else ARGUMENTS
        raise WaveganError(f"{folder / WEIGHTS} does not fit {settings}: {' '.join(str(error).split())[:300]}") from error

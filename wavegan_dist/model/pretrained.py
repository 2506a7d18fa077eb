"""What users do with a trained generator: sample, load, save, publish."""

import math
from collections.abc import Sequence
from operator import index
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from typing_extensions import override

from wavegan_dist.classes import Classes
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_dir, save_tensors, sha256
from wavegan_dist.images import images_in_grid, save_grid
from wavegan_dist.model import hub
from wavegan_dist.model.card import SAMPLE_COUNT, model_card
from wavegan_dist.model.generate import (
    LabelSource,
    batch_that_fills_a_gpu,
    chunk_size,
    generated_images,
    labels_by_number,
    latents_of_images,
    uses_exact_mode,
)
from wavegan_dist.model.training_info import META, WEIGHTS, TrainingInfo, read_training_info

ClassChoice = int | str | Sequence[int | str]


class PretrainedGenerator(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="wavegan-dist",
    pipeline_tag="unconditional-image-generation",
    tags=["gan", "wavelet"],
):
    """Base class of `WaveletGenerator`. `PyTorchModelHubMixin` records the constructor's arguments for config.json.

    Attributes:
        resolution, width, z_dim, num_classes: the constructor's arguments of these names.
        training_info: how the generator was trained; None unless it was loaded from a snapshot, or from what `save_pretrained`
            wrote for one.
    """

    resolution: int
    width: int
    z_dim: int
    num_classes: int
    training_info: TrainingInfo | None = None

    def sample(self, count: int, seed: int = 0, classes: ClassChoice | None = None, *, exact: bool = False) -> Tensor:
        """Generate images on the device of the module, in eval mode and without gradients.

        Image i depends on the weights, `seed`, `classes` and i, not on `count` (but see `exact`). On CPUs it equals image i of
        `wavegan sample --seed SEED` bit for bit. Afterwards the module and its submodules are in train or eval mode as before.
        For the network's own output, float in about [-1, 1], call the module with latents instead.

        Args:
            count: number of images.
            seed: seed of the latents and classes, at least 0.
            classes: class of the images by number or name, or several, as a sequence, an array or a comma-separated string,
                that the images take turns in. None: classes are drawn with the frequencies of the training data, or all equally
                likely if `training_info` is None.
            exact: run the network on a fixed number of latents at a time, so that image i is the same bit for bit with any
                `count`. False: on GPUs, a pixel may differ by 1 of 255 gray levels; CPUs run as with True.

        Returns:
            RGB images, uint8 [count, 3, resolution, resolution], on the device of the module.

        Raises:
            UsageError: `count` is less than 1, `seed` is not in 0..2**64-1, `classes` is empty, there is no such class, or
                the generator has no classes.
            TypeError: `count`, `seed` or a class is of another type.
            WaveganError: an image is not finite.
        """
        count, seed = index(count), index(seed)
        if count < 1 or not 0 <= seed < 2**64:
            raise UsageError(f"count = {count}, seed = {seed}: count must be at least 1, seed from 0 to 2**64 - 1")
        labels = self._labels(seed, classes)
        weight, latents = next(self.parameters()), latents_of_images(seed, self.z_dim)
        device = weight.device
        exact, chunk = uses_exact_mode(device, exact), chunk_size(self.resolution)
        size = chunk if exact else batch_that_fills_a_gpu(self.resolution, self.width)
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            batches = generated_images(
                self,
                range(count),
                seed,
                size,
                self.z_dim,
                device,
                exact=exact,
                labels=labels,
                chunk=chunk,
                latents=lambda numbers: latents(numbers).to(weight.dtype),
            )
            return torch.cat(list(batches))
        finally:
            for module, mode in modes:
                module.training = mode

    def _labels(self, seed: int, chosen: ClassChoice | None) -> LabelSource | None:
        if not self.num_classes:
            if chosen is not None:
                raise UsageError(f"classes = {chosen!r}: this generator has no classes (num_classes = 0); leave them out")
            return None
        known = self.training_info.classes if self.training_info else None
        classes = known or Classes([1] * self.num_classes, [])
        several = [] if chosen is None else _listed(chosen)
        if chosen is not None and not several:
            raise UsageError("classes is empty; give at least one class, or None to draw classes")
        return labels_by_number(classes, seed, [label for one in several for label in classes.parse(one)])

    @override
    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load a generator from a folder or from the Hugging Face Hub, on the CPU and in eval mode.

        An existing folder is read without the network: a snapshot of a run, or a folder that `save_pretrained` wrote. In a
        snapshot, the weights are compared with their recorded sha256.

        Args:
            pretrained_model_name_or_path: a folder; the name of a repository, "USER/NAME"; or "embedded-32", a small generator
                that this package contains. A `Path` is never a repository.
            revision: branch, tag or commit of the repository; None: its main branch.
            token: token for the Hub; None: that of `hf auth login`, if any.
            cache_dir: folder of downloaded files; None: that of huggingface_hub.
            local_files_only: use only files that were downloaded before.
            force_download: download files again.

        Raises:
            UsageError: there is no such folder or repository, it does not hold a generator, it is a snapshot that lacks a file,
                or its settings are invalid or of a newer version.
            WaveganError: the weights are missing, a file is damaged, or the Hub cannot be reached or reports an error.
        """
        folder = hub.find_folder(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        if (folder / META).is_file():
            return cls.from_snapshot(read_training_info(folder))
        return cls._load(folder, hub.read_arguments(folder))

    @classmethod
    def from_snapshot(cls, info: TrainingInfo) -> Self:
        """Load the generator of the snapshot that `info` was read from, on the CPU and in eval mode, and set `training_info`.

        The sha256 of the weights is not compared: `read_training_info` has done that.

        Raises:
            WaveganError: the file of the weights is missing or damaged, or does not fit config.yaml.
        """
        generator = cls._load(info.folder, hub.generator_arguments(info.config.model))
        generator.training_info = info
        return generator

    @classmethod
    def _load(cls, folder: Path, arguments: dict[str, Any]) -> Self:
        with hub.limited_weights(folder):
            generator = cls(**arguments)
        hub.load_weights(generator, folder)
        return generator.eval()

    @override
    def save_pretrained(self, save_directory: str | Path, *, license: str | None = None) -> None:  # type: ignore[override]
        """Write a folder that `from_pretrained` reads (`model.hub` lists its files), with a model card.

        If the weights are still those of the snapshot that they were loaded from, the folder is a snapshot too: `wavegan sample
        --snapshot` and `wavegan evaluate --snapshot` accept it. Of absolute paths in its config.yaml and snapshot.json, only
        the last part is written.

        Args:
            save_directory: a folder that does not exist or is empty, or that `save_pretrained` wrote before and now replaces.
            license: identifier of the weights' license for the model card, for example "cc-by-4.0"; None: the card says that
                the author states none.

        Raises:
            UsageError: the folder cannot be written to, holds other files, is a mount point or is the working folder; the
                module's layers or dtypes are not those that its constructor makes; or an argument of the constructor is not a
                valid setting of `model`, such as num_classes = 1.
            WaveganError: a generated image is not finite, or the file of the snapshot's evaluation is damaged.
            OSError: a file cannot be written, for example because the disk is full.
        """
        self._write(Path(save_directory), license, repository="USER/NAME")

    def _write(self, path: Path, license: str | None, repository: str) -> None:
        hub.check_writable(path)
        with atomic_dir(path.resolve()) as folder:
            card = {"folder": folder, "license": license, "repository": repository}
            super().save_pretrained(folder, model_card_kwargs=card)

    @override
    def _save_pretrained(self, save_directory: Path) -> None:
        self._check_architecture()
        state, info = self.state_dict(), self.training_info
        save_tensors(state, state.items(), save_directory / WEIGHTS)
        if info is not None and sha256(save_directory / WEIGHTS) == info.weights_sha256:
            info.write(save_directory)
        count = images_in_grid(SAMPLE_COUNT, self.resolution)
        save_grid(self.sample(count), save_directory / hub.SAMPLES, math.isqrt(count))

    @override
    def generate_model_card(self, folder: Path, license: str | None, repository: str) -> ModelCard:
        """Return the model card for `folder`; the mixin's `save_pretrained`, which writes the card, calls this method.

        `_save_pretrained` must have written `folder`: the card describes the training if the folder has a snapshot.json.

        Args:
            folder: the folder that gets the card.
            license: identifier of the weights' license; None: the card says that the author states none.
            repository: name of the repository, "USER/NAME", for the example in the card.
        """
        info = read_training_info(folder) if (folder / META).is_file() else None
        weights = sum(parameter.numel() for parameter in self.parameters())
        return model_card(self._hub_mixin_info.model_card_data, self._arguments(), weights, info, license, repository)

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as the mixin recorded them, with defaults; raise UsageError if one is invalid."""
        return hub.check_arguments({**cast("dict[str, Any]", self._hub_mixin_config)}, "the generator")

    def _check_architecture(self) -> None:
        """Raise UsageError unless the recorded arguments give a generator with tensors of the same names, shapes and dtypes."""
        with torch.device("meta"):
            rebuilt = type(self)(**self._arguments()).state_dict()
        mine = {name: (value.shape, value.dtype) for name, value in self.state_dict().items()}
        if mine != {name: (value.shape, value.dtype) for name, value in rebuilt.items()}:
            raise UsageError(
                "the layers or dtypes of this generator are not those that its arguments describe, so a saved folder could not "
                "be loaded; convert it with .float(), or save its state_dict()"
            )

    @override
    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        license: str | None = None,
        commit_message: str = "Upload a generator of wavegan-dist",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub in one commit. Creates the repository if there is none.

        Files of an earlier upload that the new one lacks are deleted in the same commit.

        Args:
            repo_id: name of the repository, "USER/NAME".
            license: identifier of the weights' license for the model card, for example "cc-by-4.0"; None: the card says that
                the author states none.
            commit_message: message of the commit.
            private: whether a new repository is private; None: as the account or organization has it by default.
            token: token for the Hub; None: that of `hf auth login`.
            branch: an existing branch of the repository; None: main.
            create_pr: open a pull request instead of committing to the branch.

        Returns:
            The URL of the commit.

        Raises:
            UsageError: the module's layers or dtypes are not those that its constructor makes, an argument of the constructor
                is not a valid setting of `model`, or the token may not use the repository.
            WaveganError: the Hub cannot be reached or reports another error, for example that there is no such branch; a
                generated image is not finite; or the file of the snapshot's evaluation is damaged.
        """
        api = HfApi(token=token)
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / "generator"
            self._write(folder, license, repo_id)
            with hub.hub_errors(f"repository {repo_id} on the Hugging Face Hub"):
                repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                commit = api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                    delete_patterns=list(hub.FILES),
                )
        return str(commit)


def _listed(chosen: ClassChoice) -> list[str]:
    """Return the classes as texts, one for a single number or text; raises TypeError for other types."""
    if isinstance(chosen, str):
        return [chosen]
    try:
        return [str(index(chosen))]  # type: ignore[arg-type]
    except TypeError:
        return [one if isinstance(one, str) else str(index(one)) for one in chosen]  # type: ignore[union-attr]

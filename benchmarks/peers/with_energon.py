"""Megatron-Energon: WebDataset tars with its metadata, get_savable_loader; every rank loads the list of all ranks' states.

For another number of ranks, `energon checkpoint redist` rewrites the list. The number of all workers stays the same, so that
the resumed ranks have the workers and the batch size that the new list gives them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from megatron.energon import DefaultTaskEncoder, SampleDecoder, WorkerConfig, get_savable_loader, get_train_dataset
from megatron.energon.flavors import BaseWebdatasetFactory
from protocol import Batch, Dataset, Loading, Rank, RefusalError, main

DATASET = """sample_type:
  __module__: megatron.energon
  __class__: ImageClassificationSample
field_map:
  image: {encoding}
  label: cls
"""
STORAGE = """profiles:
  bench:
    storage_provider:
      type: s3
      options: {{base_path: "", endpoint_url: "{endpoint}", region_name: us-east-1}}
cache: {{size: 100G, cache_backend: {{cache_path: "{cache}"}}}}
"""
SHUFFLE_BUFFER = 100  # the value in its quickstart, as is the length of a sequence


class Encoder(DefaultTaskEncoder):
    """Decodes to uint8."""

    decoder = SampleDecoder(image_decode="torchrgb8")


def write(dataset: Dataset) -> None:
    """Link the driver's tars and write their metadata."""
    folder = dataset.folder
    folder.mkdir()
    tars = sorted(path.name for path in dataset.tars.glob("*.tar"))
    for tar in tars:
        (folder / tar).hardlink_to(dataset.tars / tar)
    BaseWebdatasetFactory.prepare_dataset(folder, tars, split_parts_ratio=[("train", 1)], shuffle_seed=None, workers=1)
    (folder / ".nv-meta" / "dataset.yaml").write_text(DATASET.format(encoding=dataset.encoding))


def load(rank: Rank) -> Loading:
    """Load the state of the rank."""
    source, workers, batch = rank.source, rank.workers, rank.batch
    if rank.endpoint:
        config = rank.cache.with_name("storage.yaml")
        config.write_text(STORAGE.format(endpoint=rank.endpoint, cache=rank.cache))
        os.environ["MSC_CONFIG"] = str(config)
        source = source.replace("s3://", "msc://bench/")
    if rank.former:
        batch, count = rank.former[0].micro_batch_size, len(rank.former[0].worker_states)
        workers = count if rank.workers or count > 1 else 0
    dataset = get_train_dataset(
        source,
        worker_config=WorkerConfig(rank=rank.rank, world_size=rank.world, num_workers=workers),
        batch_size=batch,
        shuffle_buffer_size=SHUFFLE_BUFFER,
        max_samples_per_sequence=SHUFFLE_BUFFER,
        task_encoder=Encoder(),
        repeat=False,
    )
    loader = get_savable_loader(dataset)
    if rank.former:
        loader.restore_state_global(rank.former)
    return Loading(as_batches(iter(loader)), loader.save_state_rank)


def as_batches(batches: Iterator) -> Iterator[Batch]:
    """Yield the ids and the images of each batch."""
    for batch in batches:
        yield batch.label, batch.image


def redistribute(states: list, world: int) -> list:
    """Return the states for another number of ranks."""
    if len(states) in (0, world):
        return states
    with TemporaryDirectory() as scratch:
        files, new = [Path(scratch, f"rank{number}.pt") for number in range(len(states))], Path(scratch, "new")
        new.mkdir()
        for file, state in zip(files, states, strict=True):
            torch.save(state, file)
        command = [Path(sys.executable).parent / "energon", "checkpoint", "redist", "--new-world-size", str(world)]
        outcome = subprocess.run([*command, *files, new], capture_output=True, text=True)
        if outcome.returncode:
            raise RefusalError("energon checkpoint redist: " + outcome.stderr.strip().splitlines()[-1])
        return [torch.load(path, weights_only=False) for path in sorted(new.iterdir())]


if __name__ == "__main__":
    main(write, load, redistribute)

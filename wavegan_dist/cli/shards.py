"""`wavegan shards write | index | order | verify | info`."""

import argparse
import json
from pathlib import Path

from wavegan_dist.cli.arguments import JSON, positive, seed
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.errors import WaveganError

FOLDER = argument("folder", type=Path, metavar="DIR")
WORKERS = argument("--workers", type=positive, metavar="N", help="processes (default: all cores)")


def _write(options: argparse.Namespace) -> None:
    from wavegan_dist.data import write_shards
    from wavegan_dist.processes import cores

    index = write_shards(
        options.source,
        options.out,
        options.size,
        patches=options.patches,
        encoding=options.encoding,
        labels=options.labels,
        workers=options.workers or cores(),
    )
    print(f"{options.out}: {index.count} images of {index.size} px in {len(index.shards)} shards")


def _index(options: argparse.Namespace) -> None:
    from wavegan_dist.data import index_shards
    from wavegan_dist.processes import cores

    index = index_shards(options.folder, workers=options.workers or cores())
    print(f"{options.folder}: {index.count} images of {index.size} px in {len(index.shards)} shards")


def _order(options: argparse.Namespace) -> None:
    from wavegan_dist.data import Index, epoch_keys

    batches = epoch_keys(
        Index.load(options.folder),
        seed=options.seed,
        epoch=options.epoch,
        world_size=options.world_size,
        workers=options.workers,
        batch_size=options.batch_size,
        start=options.start,
    )
    for ranks in batches:
        print(json.dumps(ranks) if options.json else " | ".join(" ".join(keys) for keys in ranks))


def _verify(options: argparse.Namespace) -> None:
    from wavegan_dist.data import verify_shards
    from wavegan_dist.processes import cores

    problems = verify_shards(options.folder, workers=options.workers or cores())
    if options.json:
        print(json.dumps({"problems": problems}))
    if problems:
        raise WaveganError("; ".join(problems))
    if not options.json:
        print(f"{options.folder}: every shard is whole")


def _info(options: argparse.Namespace) -> None:
    from wavegan_dist.data import Index, info, info_table, save_sheet

    index = Index.load(options.folder)
    print(json.dumps(info(index)) if options.json else info_table(index))
    if options.sheet is not None:
        save_sheet(index, options.sheet)


WRITE = Command(
    name="shards write",
    help="images to WebDataset shards",
    description="Turn pictures into shards. SOURCE is a folder, a folder of WebDataset tars, a zip, a torchvision\n"
    "dataset on the disk (torchvision:CIFAR10:FOLDER), or `embedded`: photographs inside Python packages.\n"
    "A write that was stopped goes on where it was when the same command runs again.",
    example="wavegan shards write ~/photos data/photos64 --size 64 --patches",
    arguments=(
        argument("source", metavar="SOURCE", help="folder, zip, torchvision:CLASS:FOLDER or `embedded`"),
        argument("out", type=Path, metavar="OUT", help="folder to make"),
        argument("--size", type=int, required=True, help="side in pixels, a power of two from 32 to 256"),
        argument("--patches", action="store_true", help="cut patches instead of cropping and resizing each picture"),
        argument("--encoding", choices=("png", "jpg", "webp"), default="png", help="default: png; webp is lossless too"),
        argument("--labels", action="store_true", help="keep classes: folder names, .cls members or dataset targets"),
        WORKERS,
    ),
    run=_write,
)
INDEX = Command(
    name="shards index",
    help="an index for tars that another tool wrote",
    description="Write index.json and members.npy beside WebDataset tars that another tool wrote; no tar is changed.",
    example="wavegan shards index data/imagenet64",
    arguments=(FOLDER, WORKERS),
    run=_index,
)
ORDER = Command(
    name="shards order",
    help="the order in which training would see an epoch",
    description="Print an epoch's image keys in the order of training: a line for each global batch, a list for each rank.",
    example="wavegan shards order data/demo --epoch 1 --world-size 4 --batch-size 64 --json",
    arguments=(
        argument("folder", metavar="DIR"),
        argument("--seed", type=seed, default=0, metavar="S"),
        argument("--epoch", type=seed, default=0, metavar="E", help="counted from 0"),
        argument("--world-size", type=positive, default=1, metavar="W", help="ranks"),
        argument("--workers", type=seed, default=0, metavar="K", help="loader processes of each rank"),
        argument("--batch-size", type=positive, default=64, metavar="B", help="of all ranks together"),
        argument("--start", type=seed, default=0, metavar="NIMG", help="images of the epoch that were seen before"),
        argument("--json", action="store_true", help="print JSON: [[keys of rank 0], [keys of rank 1], ...]"),
    ),
    run=_order,
)
VERIFY = Command(
    name="shards verify",
    help="check every shard against the index",
    description="Check every shard against the index: present, size, sha256, and each image where it should be.",
    example="wavegan shards verify data/demo",
    arguments=(FOLDER, JSON, WORKERS),
    run=_verify,
)
INFO = Command(
    name="shards info",
    help="what an index says of its shards",
    description="Print what an index says of its shards.",
    example="wavegan shards info data/demo --sheet demo.png",
    arguments=(
        FOLDER,
        JSON,
        argument("--sheet", type=Path, metavar="FILE.png", help="also draw 64 random images as one grid"),
    ),
    run=_info,
)

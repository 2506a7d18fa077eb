"""`wavegan shards write | index | order | verify | info`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegan_dist.cli.arguments import JSON, png_file, positive_int, seed
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.log import printable

if TYPE_CHECKING:
    from wavegan_dist.data import Index

DATASET = argument("folder", type=Path, metavar="DIR", help="folder of the index, or its index.json")
WORKERS = argument("--workers", type=positive_int, metavar="N", help="worker processes (default: one per core)")


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
        max_bad_fraction=options.max_bad_fraction,
        workers=options.workers or cores(),
    )
    _print_result(options.out, index, as_json=options.json)


def _index(options: argparse.Namespace) -> None:
    from wavegan_dist.data import index_remote_shards, index_shards, is_remote
    from wavegan_dist.processes import cores

    choice: dict[str, Any] = {name: getattr(options, name) for name in ("classes", "class_names", "keys")}
    choice["workers"] = options.workers or cores()
    if not options.tars:  # as from "$UNSET_VARIABLE"; the path would be the working folder
        raise UsageError("the name of the folder is empty; give a folder of tars, or their URLs")
    if is_remote(options.tars):
        if options.out is None:
            raise UsageError(f"{options.tars} is not on this machine; give a folder for its index with --out DIR")
        index = index_remote_shards(options.tars, options.out, **choice)
    elif options.out is not None:
        raise UsageError(f"--out: the index of tars on this machine is written beside them, into {options.tars}; leave it out")
    else:
        index = index_shards(Path(options.tars), **choice)
    _print_result(options.out or Path(options.tars), index, as_json=options.json)


def _print_result(folder: Path, index: "Index", *, as_json: bool) -> None:
    """Print what a command wrote, and how many files were left out for each reason: text, or one JSON object.

    Args:
        folder: what the text calls the folder of `index`; not in the JSON object.
        index: the index that the command wrote.
        as_json: print JSON.
    """
    from wavegan_dist.data import left_out_by_reason, summary

    reasons = left_out_by_reason(index.folder)
    if as_json:
        counts = {"images": index.count, "size": index.size, "shards": len(index.shards)}
        print(json.dumps(counts | {"digest": index.digest, "left_out": reasons}))
        return
    print(f"{folder}: {index.count} images of {index.size} px in {len(index.shards)} shards")
    if reasons:
        print(f"{folder}: left out {sum(entry['count'] for entry in reasons)} files, listed in {folder / 'left_out.jsonl'}:")
    for line in summary(reasons):
        print(f"  {line}")


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
        print(json.dumps(ranks) if options.json else printable(" | ".join(" ".join(keys) for keys in ranks)))


def _verify(options: argparse.Namespace) -> None:
    from wavegan_dist.data import verify_shards
    from wavegan_dist.processes import cores

    problems = verify_shards(options.folder, workers=options.workers or cores())
    if options.json:
        print(json.dumps({"problems": problems}))
    if problems:
        raise WaveganError("; ".join(problems))
    if not options.json:
        print(f"{options.folder}: all shards match the index")


def _info(options: argparse.Namespace) -> None:
    from wavegan_dist.data import Index, info, info_table, save_sheet

    index = Index.load(options.folder)
    print(json.dumps(info(index)) if options.json else printable(info_table(index)))
    if options.sheet is not None:
        save_sheet(index, options.sheet)


WRITE = Command(
    name="shards write",
    help="convert pictures to WebDataset shards",
    description="Convert pictures to WebDataset shards of square images. SOURCE is a folder, a folder of WebDataset\n"
    "tars, a zip, a torchvision dataset on disk (torchvision:CIFAR10:FOLDER), or `embedded`: photographs that ship\n"
    "with Python packages. If the command is interrupted, run it again to resume.",
    example="wavegan shards write ~/photos data/photos64 --size 64 --patches",
    arguments=(
        argument("source", metavar="SOURCE", help="folder, zip, torchvision:CLASS:FOLDER or `embedded`"),
        argument("out", type=Path, metavar="OUT", help="new folder for the shards"),
        argument("--size", type=int, required=True, metavar="PX", help="image side, a power of two from 32 to 1024"),
        argument(
            "--patches",
            action="store_true",
            help="cut patches at a stride of PX / 2 instead of cropping and resizing each picture",
        ),
        argument(
            "--encoding",
            choices=("png", "jpg", "webp"),
            default="png",
            help="image format (default: png); png and webp are lossless",
        ),
        argument(
            "--labels", action="store_true", help="store class labels: from folder names, .cls members or dataset targets"
        ),
        argument(
            "--max-bad-fraction",
            type=float,
            default=0.0,
            metavar="F",
            help="largest fraction of the pictures to leave out because they cannot be decoded (default: 0)",
        ),
        JSON,
        WORKERS,
    ),
    run=_write,
)
INDEX = Command(
    name="shards index",
    help="index the tars of another tool",
    description="Write index.json and members.npy for the WebDataset tars of another tool. The tars are not changed. Those\n"
    "in a folder get their index beside them. Those in an object store or on a web server are read once and stay there: give\n"
    "their URLs, or pipe:COMMAND, with braces for the numbers, and --out. If the command is interrupted, run it again.\n"
    "The dataset has all images of the tars, or those of some classes or keys.",
    example="wavegan shards index 's3://bucket/laion/{00000..00999}.tar' --out data/laion",
    arguments=(
        argument("tars", metavar="DIR|URLS", help="folder of the tars, or URLs such as s3://bucket/set/{000..099}.tar"),
        argument("--out", type=Path, metavar="DIR", help="folder for the index of tars that are not on this machine"),
        argument(
            "--classes",
            metavar="LIST",
            help="only the images of these classes, comma-separated names or numbers; they become the classes 0, 1, ...",
        ),
        argument("--keys", type=Path, metavar="FILE", help="only the images with these keys, one a line"),
        argument("--class-names", type=Path, metavar="FILE", help="names of the classes 0, 1, ... of the tars, one a line"),
        JSON,
        WORKERS,
    ),
    run=_index,
)
ORDER = Command(
    name="shards order",
    help="print the order of the images in training",
    description="Print the keys of the images of an epoch in the order of training: one line per global batch, in which |\n"
    "separates the ranks.",
    example="wavegan shards order data/demo --epoch 1 --world-size 4 --batch-size 64 --json",
    arguments=(
        DATASET,
        argument("--seed", type=seed, default=0, metavar="S", help="seed of the order (default: 0)"),
        argument("--epoch", type=seed, default=0, metavar="E", help="number of the epoch, from 0 (default: 0)"),
        argument("--world-size", type=positive_int, default=1, metavar="W", help="number of ranks (default: 1)"),
        argument("--workers", type=seed, default=0, metavar="K", help="loader processes per rank (default: 0)"),
        argument("--batch-size", type=positive_int, default=64, metavar="B", help="global batch size (default: 64)"),
        argument("--start", type=seed, default=0, metavar="NIMG", help="skip the first NIMG images of the epoch"),
        argument("--json", action="store_true", help="print each batch as JSON: [[keys of rank 0], [keys of rank 1], ...]"),
    ),
    run=_order,
)
VERIFY = Command(
    name="shards verify",
    help="verify every shard against the index",
    description="Verify the size and SHA-256 of every shard, and the position and label of every image, against the index.",
    example="wavegan shards verify data/demo",
    arguments=(DATASET, JSON, WORKERS),
    run=_verify,
)
INFO = Command(
    name="shards info",
    help="describe a dataset",
    description="Print the content of a dataset's index: images, shards, labels, band statistics and digest.",
    example="wavegan shards info data/demo --sheet demo.png",
    arguments=(
        DATASET,
        JSON,
        argument("--sheet", type=png_file, metavar="FILE.png", help="also write a grid of 64 random images"),
    ),
    run=_info,
)

"""The command `wavegan`: parses, calls, prints."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from wavegan_dist.errors import UsageError, WaveganError

# Each command imports what it needs when it runs: `wavegan --help` stays instant.


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and whose help keeps its line breaks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 (done), 1 (failed), 2 (wrong use) or 130 (Ctrl-C). Errors are one line on stderr."""
    try:
        options = parse(arguments)
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except WaveganError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        return _complain(_explain(error), 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command; `key=value` settings may stand before, between and after them."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    settings = [word for word in rest if hasattr(options, "overrides") and not word.startswith("-")]
    if len(settings) < len(rest):
        unknown = next(word for word in rest if word not in settings)
        top.error(f"unrecognized argument: {unknown}")
    if settings:
        options.overrides += settings
    return options


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="wavegan", description="Train detail-rich image generators: three generators, three discriminators, one wavelet."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_shards(commands)
    return top


def _add_train(commands: Any) -> None:
    command = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model. Run it under `accelerate launch -m wavegan_dist train ...` for several processes.",
        epilog="example: wavegan train --config configs/cifar10.yaml train.batch_size=128 --run-dir runs/big-batch",
    )
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="experiment, YAML")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/NAME_OF_CONFIG)")
    command.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH", help="go on from the newest checkpoint (default: auto)"
    )
    command.set_defaults(run=_train)


def _add_sample(commands: Any) -> None:
    command = commands.add_parser(
        "sample",
        help="draw images from a snapshot",
        description="Draw images from a snapshot's EMA generator. Image i depends on the seed and i only.",
        epilog="example: wavegan sample --snapshot runs/demo/snapshots/kimg-000100 --count 64 --seed 1 --out grid.png",
    )
    command.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    command.add_argument("--count", type=_positive, default=64, metavar="N", help="images (default: 64)")
    command.add_argument("--seed", type=_seed, default=0, metavar="S")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR_OR_PNG", help="one grid if it ends in .png, else a folder"
    )
    command.set_defaults(run=_sample)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure a snapshot against real images",
        description="Measure a snapshot's EMA generator against real images. Metrics: fwd, spectrum, fd, kid, fid.",
        epilog="example: wavegan evaluate --snapshot runs/demo/snapshots/kimg-000100 --data data/demo/index.json --count 2000",
    )
    command.add_argument("--snapshot", type=Path, required=True, metavar="DIR")
    command.add_argument("--data", type=Path, required=True, metavar="INDEX", help="index.json of the real images")
    command.add_argument("--metrics", default="fwd,spectrum,fd,kid", metavar="LIST", help="default: fwd,spectrum,fd,kid")
    command.add_argument("--count", type=_positive, metavar="N", help="images of each kind (default: 5000, or all there are)")
    command.add_argument("--seed", type=_seed, default=0, metavar="S")
    command.add_argument("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's Inception, for fid")
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="default: RUN/evaluations/SNAPSHOT.json for a run's snapshot"
    )
    command.set_defaults(run=_evaluate)


def _add_shards(commands: Any) -> None:
    shards = commands.add_parser("shards", help="write, index, verify and describe training data")
    kinds = shards.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    write = kinds.add_parser(
        "write",
        help="images to WebDataset shards",
        description="Turn pictures into shards. SOURCE is a folder, a folder of WebDataset tars, a zip, a torchvision\n"
        "dataset on the disk (torchvision:CIFAR10:FOLDER), or `embedded`: photographs inside Python packages.\n"
        "A write that was stopped goes on where it was when the same command runs again.",
        epilog="example: wavegan shards write ~/photos data/photos64 --size 64 --patches",
    )
    write.add_argument("source", metavar="SOURCE", help="folder, zip, torchvision:CLASS:FOLDER or `embedded`")
    write.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    write.add_argument("--size", type=int, required=True, help="side in pixels, a power of two from 32 to 256")
    write.add_argument("--patches", action="store_true", help="cut patches instead of cropping and resizing each picture")
    write.add_argument("--encoding", choices=("png", "jpg", "webp"), default="png", help="default: png; webp is lossless too")
    write.add_argument("--labels", action="store_true", help="keep classes: folder names, .cls members or dataset targets")
    write.set_defaults(run=_shards_write)
    index = kinds.add_parser(
        "index",
        help="an index for tars that another tool wrote",
        description="Write index.json and members.npy beside WebDataset tars that another tool wrote; no tar is changed.",
        epilog="example: wavegan shards index data/imagenet64",
    )
    index.add_argument("folder", type=Path, metavar="DIR")
    index.set_defaults(run=_shards_index)
    order = kinds.add_parser(
        "order",
        help="the order in which training would see an epoch",
        description="Print an epoch's image keys in the order of training: a line for each global batch, a list for each rank.",
        epilog="example: wavegan shards order data/demo --epoch 1 --world-size 4 --batch-size 64 --json",
    )
    order.add_argument("folder", metavar="DIR")
    order.add_argument("--seed", type=_seed, default=0, metavar="S")
    order.add_argument("--epoch", type=_seed, default=0, metavar="E", help="counted from 0")
    order.add_argument("--world-size", type=_positive, default=1, metavar="W", help="ranks")
    order.add_argument("--workers", type=_seed, default=0, metavar="K", help="loader processes of each rank")
    order.add_argument("--batch-size", type=_positive, default=64, metavar="B", help="of all ranks together")
    order.add_argument("--start", type=_seed, default=0, metavar="NIMG", help="images of the epoch that were seen before")
    order.add_argument("--json", action="store_true", help="print JSON: [[keys of rank 0], [keys of rank 1], ...]")
    order.set_defaults(run=_shards_order)
    verify = kinds.add_parser(
        "verify",
        help="check every shard against the index",
        description="Check every shard against the index: present, size, sha256, and each image where it should be.",
        epilog="example: wavegan shards verify data/demo",
    )
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_shards_verify)
    for command in (write, index, verify):
        command.add_argument("--workers", type=_positive, metavar="N", help="processes (default: all cores)")
    info = kinds.add_parser(
        "info",
        help="what an index says of its shards",
        description="Print what an index says of its shards.",
        epilog="example: wavegan shards info data/demo --sheet demo.png",
    )
    info.add_argument("folder", type=Path, metavar="DIR")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw 64 random images as one grid")
    info.set_defaults(run=_shards_info)


def _train(options: argparse.Namespace) -> None:
    from wavegan_dist import config

    experiment = config.load(options.config, options.overrides)
    from wavegan_dist.train.loop import train

    train(experiment, options.run_dir or Path("runs") / options.config.stem, options.resume)


def _sample(options: argparse.Namespace) -> None:
    from wavegan_dist.evaluate.generate import sample
    from wavegan_dist.model.snapshot import load_snapshot

    sample(load_snapshot(options.snapshot), options.count, options.seed, options.out)
    print(options.out)


def _evaluate(options: argparse.Namespace) -> None:
    from wavegan_dist import evaluate
    from wavegan_dist.train.tracking import log_evaluation

    result = evaluate.evaluate_snapshot(
        options.snapshot,
        options.data,
        metrics=options.metrics.split(","),
        count=options.count,
        seed=options.seed,
        inception_weights=options.inception_weights,
    )
    run = options.snapshot.resolve().parent.parent
    of_run = options.snapshot.resolve().parent.name == "snapshots"
    out = options.json or (run / "evaluations" / f"{options.snapshot.resolve().name}.json" if of_run else None)
    if out is not None:
        evaluate.save_result(result, out)
        if "spectrum" in result["tables"]:
            evaluate.plot_spectrum(result["tables"]["spectrum"], out.with_suffix(".png"))
    if of_run:
        log_evaluation(run, result)
    print(evaluate.format_table(result))
    if out is not None:
        print(out)


def _shards_write(options: argparse.Namespace) -> None:
    from wavegan_dist.data import write_shards
    from wavegan_dist.data.parallel import cores

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


def _shards_index(options: argparse.Namespace) -> None:
    from wavegan_dist.data import index_shards
    from wavegan_dist.data.parallel import cores

    index = index_shards(options.folder, workers=options.workers or cores())
    print(f"{options.folder}: {index.count} images of {index.size} px in {len(index.shards)} shards")


def _shards_order(options: argparse.Namespace) -> None:
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


def _shards_verify(options: argparse.Namespace) -> None:
    from wavegan_dist.data import verify_shards
    from wavegan_dist.data.parallel import cores

    problems = verify_shards(options.folder, workers=options.workers or cores())
    if options.json:
        print(json.dumps({"problems": problems}))
    if problems:
        raise WaveganError("; ".join(problems))
    if not options.json:
        print(f"{options.folder}: every shard is whole")


def _shards_info(options: argparse.Namespace) -> None:
    from wavegan_dist.data import Index, info, info_table, save_sheet

    index = Index.load(options.folder)
    print(json.dumps(info(index)) if options.json else info_table(index))
    if options.sheet is not None:
        save_sheet(index, options.sheet)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} is not a seed; give 0 or more")
    return value


def _explain(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    advice = "; free some space there or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{where}{(error.strerror or str(error)).lower()}{advice}"


def _complain(message: str, exit_code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"wavegan: {'' if rank == '0' else f'[rank {rank}] '}{' '.join(message.split())}", file=sys.stderr)
    return exit_code

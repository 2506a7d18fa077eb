"""Images per second of our data loader and of others, on the same images, on this disk and in an object store.

    python benchmarks/throughput.py     or: ... --loaders ours streaming --places local s3+50ms --rounds 1

PNG of 64 px and JPEG of 256 px from the embedded photographs, in shards of about 4 MiB, in the format of each loader. Places:
    local       this disk; the files are in the page cache
    s3+0ms      an S3 server (moto) on this machine, and an empty cache
    s3+5ms      the same behind a proxy that delays each request by 5 ms; s3+50ms accordingly
Every measurement is a new process that reads one epoch in batches of 64, or as much as --seconds allow. Without workers, it may
use one core, because Grain would decode in threads on all cores; with K workers, K cores. Loaders take turns within each round;
medians over the rounds:
    first       seconds from the construction of the loader to its first batch, without imports
    rate        images/s after the first batch
    epoch       images/s of all that was read, the first batch and its seconds included
The server and the proxy share the cores with the loader. Finished measurements are in benchmarks/peers/throughput.json and are
not repeated: raise --rounds for more. The adapters are in benchmarks/peers/; see resume_matrix.py.
"""

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_common import argument_parser, write_json
from loaders import ADAPTERS, ENVIRONMENTS, NAMES, Loaders, write_formats, write_images

from wavegan_dist.data import index_remote_shards
from wavegan_dist.provenance import provenance

SETS = {"png": (64, 49152), "jpg": (256, 12288)}  # image side in pixels, and images
BATCH, BUCKET = 64, "bucket"
S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "name",
    "AWS_SECRET_ACCESS_KEY": "word",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def main() -> None:
    """Measure what has no result yet, and print the table."""
    options = parse_arguments()
    os.environ |= S3_VARIABLES
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the server and the proxy; loaders choose their own cores
    result = json.loads(options.result.read_text()) if options.result.exists() else {"runs": {}, "versions": {}}
    for encoding in options.encodings:
        if not list(missing(options, encoding, result["runs"])):
            continue
        with (
            TemporaryDirectory(dir=options.scratch) as scratch,
            contextlib.closing(Loaders(options.environments, options.torch, Path(scratch))) as loaders,
        ):
            measure_set(loaders, encoding, options, result)
    print(table(result["runs"]))


def missing(options: argparse.Namespace, encoding: str, runs: dict[str, list[Any]]) -> Iterator[tuple[str, int, str, str]]:
    """Yield place, workers, loader and key of what is to be measured, round after round."""
    places = itertools.product(range(options.rounds), options.places, options.workers, options.loaders)
    for number, place, workers, name in places:
        key = f"{encoding}, {place}, {workers} workers, {name}"
        if len(runs.get(key, [])) <= number and not any("refused" in run for run in runs.get(key, [])):
            yield place, workers, name, key


def measure_set(loaders: Loaders, encoding: str, options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure all loaders on the images of one encoding."""
    size, images = SETS[encoding]
    images = options.images or images
    shard_bytes = write_images("embedded", loaders.scratch / "tars", encoding, size, images, options.shards)
    sources = write_formats(loaders, options.loaders, encoding, options.shards, shard_bytes)
    (loaders.scratch / "tars.txt").write_text("\n".join(path.name for path in sorted((loaders.scratch / "tars").glob("*.tar"))))
    remote = any(place != "local" for place in options.places)
    with s3_server() if remote else contextlib.nullcontext("") as server, contextlib.ExitStack() as proxies:
        endpoints = {"local": ""}
        for place in options.places:
            if place != "local":
                endpoints[place] = proxies.enter_context(delayed(server, latency(place)))
        if remote:
            upload(server, {name: source for name, source in sources.items() if not source.startswith("not run")})
        for place, workers, name, key in missing(options, encoding, result["runs"]):
            job = {"kind": "time", "encoding": encoding, "world": 1, "workers": workers, "batch": BATCH, "images": images}
            job["cores"] = max(workers, 1)
            run = measure(loaders, name, sources[name], endpoints[place], {**job, "seconds": options.seconds})
            result["runs"].setdefault(key, []).append(run)
            result["versions"].setdefault(name, {} if "not run" in run else loaders.versions(name))
            write_json(options.result, result | {"shards": options.shards, "provenance": provenance()})
            print(key, run, flush=True)


def measure(loaders: Loaders, name: str, source: str, endpoint: str, job: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one run."""
    if source.startswith("not run"):
        return {"refused": source}
    if not endpoint:
        return loaders.run(name, **job, source=source)[0]
    job = {**job, "endpoint": endpoint, "variables": {"AWS_ENDPOINT_URL": endpoint, "S3_ENDPOINT_URL": endpoint}}
    if name == "ours":
        index = loaders.scratch / "index"
        if not index.exists():
            shards = len(list((loaders.scratch / "tars").glob("*.tar")))
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            index_remote_shards(f"s3://{BUCKET}/tars/{{00000..{shards - 1:05d}}}.tar", index, workers=4)
        return loaders.run(name, **job, source=str(index))[0]
    return loaders.run(name, **job, source=f"s3://{BUCKET}/{Path(source).name}")[0]


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 server while the block runs; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def upload(server: str, sources: dict[str, str]) -> None:
    """Copy each loader's dataset into the bucket."""
    import fsspec

    # curl, with which webdataset reads, signs no requests
    store = fsspec.filesystem("s3", endpoint_url=server, s3_additional_kwargs={"ACL": "public-read"})
    store.mkdir(BUCKET)
    for source in set(sources.values()):
        store.put(source, f"{BUCKET}/{Path(source).name}", recursive=True)


def latency(place: str) -> float:
    """Return the seconds by which the requests to a place are delayed."""
    return float(place.removeprefix("s3+").removesuffix("ms")) / 1000


@contextlib.contextmanager
def delayed(server: str, seconds: float) -> Iterator[str]:
    """Forward connections to a server, each request `seconds` later; yield the URL to use in its place."""
    port = int(server.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    threading.Thread(target=forward, args=(client, port, seconds), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def forward(client: socket.socket, port: int, seconds: float) -> None:
    """Serve one connection: opening it takes `seconds`, and so does each request on it."""
    time.sleep(seconds)
    with client, socket.create_connection(("127.0.0.1", port)) as upstream:
        requests = threading.Thread(target=pump, args=(client, upstream, seconds), daemon=True)
        requests.start()
        pump(upstream, client, 0.0)


def pump(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Copy what arrives, `seconds` later, until the source is closed."""
    with contextlib.suppress(OSError):
        while block := source.recv(2**20):
            time.sleep(seconds)
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table: medians of the runs of each case, and the ratio of ours to the best other loader."""
    lines = [
        "| set | place | workers | loader | first, s | rate | epoch | ours : this, epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    medians = {key: median(done) for key, done in runs.items()}
    for key, values in medians.items():
        encoding, place, workers, name = key.split(", ")
        if values is None:
            lines.append(f"| {encoding} | {place} | {workers[0]} | {name} | {runs[key][0]['refused']} | | | |")
            continue
        first, rate, epoch = values
        ours = medians.get(f"{encoding}, {place}, {workers}, ours")
        ratio = f"{ours[2] / epoch:.2f}" if ours else "-"
        row = f"{first:.2f} | {rate:,.0f} | {epoch:,.0f} | {ratio}"
        lines.append(f"| {encoding} | {place} | {workers[0]} | {name} | {row} |")
    return "\n".join(lines)


def median(done: list[dict[str, Any]]) -> tuple[float, float, float] | None:
    """Return the medians of first, rate and epoch; None if the loader refused."""
    if any("refused" in run for run in done):
        return None
    first = statistics.median(run["first"] for run in done)
    rate = statistics.median(run["images"] / run["seconds"] for run in done)
    epoch = statistics.median((run["images"] + BATCH) / (run["first"] + run["seconds"]) for run in done)
    return first, rate, epoch


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    places = ("local", "s3+0ms", "s3+5ms", "s3+50ms")
    parser.add_argument("--encodings", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--places", nargs="+", choices=places, default=["local", "s3+5ms", "s3+50ms"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2], metavar="K")
    parser.add_argument("--loaders", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds for the medians (default: 3)")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S", help="longest measurement (default: 15)")
    parser.add_argument("--shards", type=int, default=80, metavar="N", help="shards of each dataset (default: 80)")
    parser.add_argument("--images", type=int, metavar="N", help="images of each dataset")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, metavar="DIR")
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="such as torch==2.13.0+cpu (default: torch)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="folder for the datasets (default: the temporary folder)")
    parser.add_argument("--result", type=Path, default=ADAPTERS / "throughput.json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""One process of benchmarks/scaling.py, started by `accelerate launch`: takes real training steps on request and times them.

Waits for the request file `go-NAME-NUMBER` in a folder that both sides know, and answers with `NAME-NUMBER.RANK.json`. The
request `quit` ends the process.
"""

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

from wavegan_dist import config
from wavegan_dist.data import DataErrorLog, ImageBatch
from wavegan_dist.files import atomic_file
from wavegan_dist.model import sync_batchnorm
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.loop import load_index, local_batches
from wavegan_dist.train.progress import peak_memory
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer

MESSAGE_SIZES = [2**power for power in range(8, 25, 2)]  # bytes
MATRIX_PRODUCTS = ("aten::convolution", "aten::convolution_backward", "aten::mm", "aten::bmm", "aten::addmm")
POLL_INTERVAL = 0.02


class StepTimer:
    """Measures the seconds of each part of one step. Communication inside a forward or backward pass is not compute."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.began: dict[str, float] = {}
        self.last_bucket_sent = 0.0

    def start(self, part: str) -> None:
        """Start the clock of `part`."""
        self.began[part] = time.perf_counter()

    def stop(self, part: str) -> None:
        """Stop the clock of `part`."""
        self.seconds[part] += time.perf_counter() - self.began[part]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time counted as `part`."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            self.start(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self.stop(part)

        return run

    def timed_backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `Tensor.backward` with the time after the last bucket was sent counted as waiting for gradients."""
        timed = self.timed("passes", function)

        def run(*arguments: Any, **keywords: Any) -> None:
            self.last_bucket_sent = 0.0
            timed(*arguments, **keywords)
            if self.last_bucket_sent:
                self.seconds["gradients"] += time.perf_counter() - self.last_bucket_sent

        return run

    def all_reduce_bucket(
        self,
        _: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # DDP checks this annotation
    ) -> torch.futures.Future[Tensor]:
        """Average a gradient bucket over all ranks as DDP does without a communication hook."""
        self.last_bucket_sent = time.perf_counter()
        work = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    def drain(self, total: float) -> dict[str, float]:
        """Return the parts of a step that took `total` seconds, with the rest as `other`, and reset the clocks."""
        parts = {name: self.seconds[name] for name in ("data", "norms", "gradients", "optimizer", "agreement")}
        parts["compute"] = self.seconds["passes"] - parts["norms"] - parts["gradients"]
        parts["other"] = total - sum(parts.values())
        self.seconds.clear()
        return {**parts, "total": total}


def install(timer: StepTimer, trainer: Trainer, wrappers: list[DistributedDataParallel]) -> None:
    """Make a trainer's forward and backward passes, norms, optimizers and DDP wrappers report to `timer`."""
    sync_batchnorm._all_gather_pairs = timer.timed("norms", sync_batchnorm._all_gather_pairs)
    torch.Tensor.backward = timer.timed_backward(torch.Tensor.backward)  # type: ignore[method-assign]
    register_optimizer_step_pre_hook(lambda *_: timer.start("optimizer"))
    register_optimizer_step_post_hook(lambda *_: timer.stop("optimizer"))
    for module in trainer.accelerator._models:
        module.register_forward_pre_hook(lambda *_: timer.start("passes"))
        module.register_forward_hook(lambda *_: timer.stop("passes"))
    for wrapper in wrappers:
        wrapper.register_comm_hook(None, timer.all_reduce_bucket)


@contextmanager
def collecting_ddp_wrappers(wrappers: list[DistributedDataParallel]) -> Iterator[None]:
    """Append every DDP wrapper that is constructed in the block to `wrappers`."""

    def collect(parent: torch.nn.Module, name: str, _: object) -> None:
        if isinstance(parent, DistributedDataParallel) and name == "module":
            wrappers.append(parent)

    hook = register_module_module_registration_hook(collect)
    yield
    hook.remove()


class Worker:
    """A trainer that takes steps on request."""

    def __init__(self, folder: Path, experiment: config.Experiment) -> None:
        accelerator = launch.init_accelerator(experiment.train)
        index = load_index(experiment)
        self.timer = StepTimer()
        wrappers: list[DistributedDataParallel] = []
        with collecting_ddp_wrappers(wrappers):
            self.trainer = Trainer(experiment, index, accelerator)
        install(self.timer, self.trainer, wrappers)
        error_log = DataErrorLog(accelerator, folder / "data_errors.jsonl", index, 0.0)
        self.batches = self._timed_batches(local_batches(self.trainer, index, error_log))
        self.step_sync = StepSync(self.trainer, Checkpointer(self.trainer, dict), Signals())

    def _timed_batches(self, batches: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
        take = self.timer.timed("data", lambda: next(batches))
        while True:
            yield take()

    def step(self) -> dict[str, float]:
        """Take one step as the training loop does; return the seconds of each part."""
        began = time.perf_counter()
        self.trainer.step(self.batches)
        self.timer.timed("agreement", self.step_sync.all_reduce)()
        return self.timer.drain(time.perf_counter() - began)

    def products_share(self) -> float:
        """Return the share of a step's time spent in matrix products and convolutions, by PyTorch's profiler."""
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(2):
                self.step()
        events = profiler.key_averages()
        products = sum(event.cpu_time_total for event in events if event.key in MATRIX_PRODUCTS)
        return float(products / sum(event.self_cpu_time_total for event in events))


def all_reduce_seconds(rounds: int = 50) -> dict[int, float]:
    """Return the mean seconds of an all-reduce by its size in bytes. The mean, because a step is a sum of many."""
    means = {}
    for size in MESSAGE_SIZES:
        message, times = torch.zeros(size // 4), []
        for _ in range(rounds):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(message)
            times.append(time.perf_counter() - began)
        means[size] = statistics.fmean(times)
    return means


def main() -> None:
    """Take the first step, then serve requests."""
    options = parse_arguments()
    worker = Worker(options.folder, config.load(options.config, options.overrides))
    worker.step()
    write_answer(options, worker, "first", {"at": time.time()})
    for number in range(10**6):
        request = wait_for_request(options.folder, options.name, number)
        if request["do"] == "quit":
            break
        if request["do"] == "steps":
            worker.step()
            answer: dict[str, Any] = {"steps": [worker.step() for _ in range(request["count"])]}
        elif request["do"] == "products":
            answer = {"share": worker.products_share()}
        else:
            answer = {"seconds": all_reduce_seconds()}
        write_answer(options, worker, str(number), answer)


def wait_for_request(folder: Path, name: str, number: int) -> dict[str, Any]:
    """Sleep until the request of that number is there; return `quit` if the launcher has died."""
    while not (path := folder / f"go-{name}-{number}").exists():
        if os.getppid() == 1:
            return {"do": "quit"}
        time.sleep(POLL_INTERVAL)
    request: dict[str, Any] = json.loads(path.read_text())
    return request


def write_answer(options: argparse.Namespace, worker: Worker, number: str, answer: dict[str, Any]) -> None:
    """Write the answer to a request, with this process's peak memory so far."""
    accelerator = worker.trainer.accelerator
    with atomic_file(options.folder / f"{options.name}-{number}.{accelerator.process_index}.json") as file:
        json.dump({**answer, "peak_bytes": peak_memory(accelerator.device)}, file)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    main()
    leave()

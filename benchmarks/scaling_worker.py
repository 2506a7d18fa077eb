"""One process of benchmarks/scaling.py, started by `accelerate launch`: real training steps, timed part by part, when told to.

It waits for `go-NAME-ROUND` in the folder that both sides know and answers with `NAME-ROUND.RANK.json`; `quit` ends it.
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
from wavegan_dist.data import DataErrorLog
from wavegan_dist.files import atomic_file
from wavegan_dist.model import cpu_sync_batchnorm
from wavegan_dist.processes import leave
from wavegan_dist.train import launch
from wavegan_dist.train.checkpoint import Checkpointer
from wavegan_dist.train.loop import load_index, local_batches
from wavegan_dist.train.progress import peak_memory
from wavegan_dist.train.signals import Signals
from wavegan_dist.train.step_sync import StepSync
from wavegan_dist.train.trainer import Trainer

MESSAGES = [2**power for power in range(8, 25, 2)]  # bytes
PRODUCTS = ("aten::convolution", "aten::convolution_backward", "aten::mm", "aten::bmm", "aten::addmm")
POLL = 0.02


class Parts:
    """Seconds of one step by part. Exchanges inside a forward or a backward are taken out of compute."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.began: dict[str, float] = {}
        self.sent = 0.0  # when the last bucket of gradients left

    def start(self, part: str) -> None:
        """`part` begins."""
        self.began[part] = time.perf_counter()

    def stop(self, part: str) -> None:
        """`part` ends."""
        self.seconds[part] += time.perf_counter() - self.began[part]

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, its time counted as `part`."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            self.start(part)
            try:
                return work(*arguments, **keywords)
            finally:
                self.stop(part)

        return run

    def backward(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`Tensor.backward`; what follows the last bucket's departure is waiting for gradients."""
        timed = self.timed("passes", work)

        def run(*arguments: Any, **keywords: Any) -> None:
            self.sent = 0.0
            timed(*arguments, **keywords)
            if self.sent:
                self.seconds["gradients"] += time.perf_counter() - self.sent

        return run

    def share(self, _: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """DDP's exchange of a bucket, as it does by itself."""
        self.sent = time.perf_counter()
        work = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    def drain(self, total: float) -> dict[str, float]:
        """The parts of a step that took `total`; `other` is the rest."""
        parts = {name: self.seconds[name] for name in ("data", "norms", "gradients", "optimizer", "agreement")}
        parts["compute"] = self.seconds["passes"] - parts["norms"] - parts["gradients"]
        parts["other"] = total - sum(parts.values())
        self.seconds.clear()
        return {**parts, "total": total}


def watch(parts: Parts, trainer: Trainer, wrappers: list[DistributedDataParallel]) -> None:
    """Put the stopwatches in place."""
    cpu_sync_batchnorm._all_gather_pairs = parts.timed("norms", cpu_sync_batchnorm._all_gather_pairs)
    torch.Tensor.backward = parts.backward(torch.Tensor.backward)  # type: ignore[method-assign]
    register_optimizer_step_pre_hook(lambda *_: parts.start("optimizer"))
    register_optimizer_step_post_hook(lambda *_: parts.stop("optimizer"))
    for module in trainer.accelerator._models:
        module.register_forward_pre_hook(lambda *_: parts.start("passes"))
        module.register_forward_hook(lambda *_: parts.stop("passes"))
    for wrapper in wrappers:
        wrapper.register_comm_hook(None, parts.share)


@contextmanager
def caught(wrappers: list[DistributedDataParallel]) -> Iterator[None]:
    """Fill `wrappers` with what is made meanwhile."""

    def seen(parent: torch.nn.Module, name: str, _: object) -> None:
        if isinstance(parent, DistributedDataParallel) and name == "module":
            wrappers.append(parent)

    hook = register_module_module_registration_hook(seen)
    yield
    hook.remove()


class Job:
    """A trainer that makes steps when asked."""

    def __init__(self, folder: Path, experiment: config.Experiment) -> None:
        accelerator = launch.init_accelerator(experiment.train)
        index = load_index(experiment)
        self.parts = Parts()
        wrappers: list[DistributedDataParallel] = []
        with caught(wrappers):
            self.trainer = Trainer(experiment, index, accelerator)
        watch(self.parts, self.trainer, wrappers)
        error_log = DataErrorLog(accelerator, folder / "data_errors.jsonl", index, 0.0)
        self.batches = self._waiting(local_batches(self.trainer, index, error_log))
        self.step_sync = StepSync(self.trainer, Checkpointer(self.trainer, dict), Signals())

    def _waiting(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        take = self.parts.timed("data", lambda: next(batches))
        while True:
            yield take()

    def step(self) -> dict[str, float]:
        """Seconds of each part of one step, as the loop makes it."""
        began = time.perf_counter()
        self.trainer.step(self.batches)
        self.parts.timed("agreement", self.step_sync.all_reduce)()
        return self.parts.drain(time.perf_counter() - began)

    def products(self) -> float:
        """Share of a step's time, by PyTorch's profiler, spent in matrix products and convolutions."""
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(2):
                self.step()
        events = seen.key_averages()
        within = sum(event.cpu_time_total for event in events if event.key in PRODUCTS)
        return within / sum(event.self_cpu_time_total for event in events)


def all_reduce_seconds(rounds: int = 50) -> dict[int, float]:
    """Mean seconds of an all-reduce by its bytes: a step adds many of them up."""
    means = {}
    for size in MESSAGES:
        message, times = torch.zeros(size // 4), []
        for _ in range(rounds):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(message)
            times.append(time.perf_counter() - began)
        means[size] = statistics.fmean(times)
    return means


def main() -> None:
    """Make the first step, then do as told."""
    options = parse()
    job = Job(options.folder, config.load(options.config, options.overrides))
    job.step()
    answer(options, job, "first", {"at": time.time()})
    for number in range(10**6):
        task = wait(options.folder, options.name, number)
        if task["do"] == "quit":
            break
        if task["do"] == "steps":
            job.step()
            told: Any = {"steps": [job.step() for _ in range(task["count"])]}
        elif task["do"] == "products":
            told = {"share": job.products()}
        else:
            told = {"seconds": all_reduce_seconds()}
        answer(options, job, str(number), told)


def wait(folder: Path, name: str, number: int) -> dict[str, Any]:
    """The next task, when it is there; this process sleeps meanwhile."""
    while not (path := folder / f"go-{name}-{number}").exists():
        if os.getppid() == 1:  # the launcher is gone
            return {"do": "quit"}
        time.sleep(POLL)
    task: dict[str, Any] = json.loads(path.read_text())
    return task


def answer(options: argparse.Namespace, job: Job, number: str, told: dict[str, Any]) -> None:
    """Say what was measured, and the peak memory so far."""
    rank = job.trainer.accelerator.process_index
    with atomic_file(options.folder / f"{options.name}-{number}.{rank}.json") as file:
        json.dump({**told, "peak_bytes": peak_memory()}, file)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    main()
    leave()

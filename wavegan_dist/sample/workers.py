"""Threads that generate and encode batches of images at the same time.

On a CPU, each thread generates whole batches and computes with one core. This is faster than one forward on all cores: these
networks are small, and the cores would wait for each other in every layer. Images are the same on machines with other numbers
of cores. On a GPU, the main thread generates, and the threads encode the images of earlier batches.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from torch import Tensor

from wavegan_dist.devices import full_float32
from wavegan_dist.evaluate.progress import image_progress_bar
from wavegan_dist.processes import cores, single_core_threads
from wavegan_dist.sample.images import Images

Result = TypeVar("Result")
Work = Callable[[range, Tensor], Result]  # called with the numbers of some images and the images, uint8 [B, 3, R, R]

MAX_THREADS = 8  # each holds the feature maps of a forward, and Python runs one of them at a time
QUEUED = 2  # tasks per thread that have started or wait, and whose results have not been written
ENCODED_AT_ONCE = 64  # images of a GPU's batch that one task encodes


class Workers:
    """The threads of one command; see `worker_threads`."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool, self._window = pool, QUEUED * threads

    def results(self, images: Images, batches: Sequence[range], work: Work[Result]) -> Iterator[Result]:
        """Generate batches and yield `work(numbers, images)` for the images of each batch or part of a batch, in their order.

        Shows a progress bar of all images if stderr is a terminal; images outside `batches` count as done.

        Args:
            images: what to generate.
            batches: some of `images.batches()`.
            work: called in a thread with numbers of images and these images, uint8 [B, 3, R, R] on the CPU: a whole batch or,
                if `images.device` is not a CPU, at most ENCODED_AT_ONCE images. Its errors are passed on.

        Raises:
            WaveganError: an image is not finite.
        """
        tasks = _whole_batches(images, batches, work) if images.device.type == "cpu" else _parts(images, batches, work)
        pending: deque[tuple[int, Future[Result]]] = deque()
        with image_progress_bar(images.count, "generated images") as bar:
            bar.update(images.count - sum(map(len, batches)))
            for count, task in tasks:
                pending.append((count, self._pool.submit(task)))
                if len(pending) >= self._window:
                    yield _first(pending, bar.update)
            while pending:
                yield _first(pending, bar.update)


@contextmanager
def worker_threads() -> Iterator[Workers]:
    """Start one thread per core, at most MAX_THREADS, and end them with the block; tasks that have not begun are cancelled.

    Each thread computes with one core. While the block runs, the whole process computes in `full_float32`.
    """
    threads = min(cores(), MAX_THREADS)
    # full_float32 is process-wide; a thread that enters and leaves this context again restores the same state
    with single_core_threads(threads) as pool, full_float32():
        yield Workers(pool, threads)


def _whole_batches(images: Images, batches: Iterable[range], work: Work[Result]) -> Iterator[tuple[int, Callable[[], Result]]]:
    """Yield (number of images, task) for each batch; the task generates the batch and calls `work`."""
    for batch in batches:
        yield len(batch), partial(_generate_and_work, images, batch, work)


def _generate_and_work(images: Images, batch: range, work: Work[Result]) -> Result:
    return work(batch, images.generate(batch))


def _parts(images: Images, batches: Iterable[range], work: Work[Result]) -> Iterator[tuple[int, Callable[[], Result]]]:
    """Generate batches in this thread and yield (number of images, task) for parts of them; the task calls `work`."""
    for batch in batches:
        generated = images.generate(batch)
        for first in range(0, len(batch), ENCODED_AT_ONCE):
            part = slice(first, first + ENCODED_AT_ONCE)
            yield len(batch[part]), partial(work, batch[part], generated[part])


def _first(pending: deque[tuple[int, Future[Result]]], done: Callable[[int], object]) -> Result:
    count, future = pending.popleft()
    result = future.result()
    done(count)
    return result

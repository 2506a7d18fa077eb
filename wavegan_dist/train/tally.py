"""The account of the bad over all processes: named once, counted, and a reason to stop when there is too much of it."""

import json
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from wavegan_dist.data import Account, DataError, Index
from wavegan_dist.errors import WaveganError


class Tally:
    """What all processes together could not read.

    Args:
        accelerator: the processes.
        path: `data_errors.jsonl` of the run; what an earlier start found there counts on.
        index: the set.
        max_bad_fraction: share of the set's images that may be unreadable.
    """

    def __init__(self, accelerator: Accelerator, path: Path, index: Index, max_bad_fraction: float) -> None:
        self.accelerator, self.path, self.index, self.limit = accelerator, path, index, max_bad_fraction
        self.account = Account()
        if path.exists():
            self.account.add(DataError(**json.loads(line)) for line in path.read_text().splitlines())
        self._fresh: list[DataError] = []

    def found(self, findings: list[DataError]) -> None:
        """Take in what this process's loader could not read."""
        self._fresh += findings

    def settle(self) -> dict[str, float]:
        """Share what is new, list it in the file, count all: a collective call.

        Raises:
            WaveganError: on all processes: more images than allowed cannot be read.
        """
        new = self.account.add(gather_object(self._fresh))
        self._fresh = []
        if new and self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.writelines(json.dumps(asdict(finding)) + "\n" for finding in new)
        images = self.account.images
        if images > self.limit * self.index.count:
            raise WaveganError(
                f"{images} of {self.index.count} images cannot be read, more than data.max_bad_fraction = {self.limit:g} "
                f"allows; last {new[-1]}; {self.path} lists them; mend the set or allow for more"
            )
        return {"data/bad_images": float(images), "data/bad_shards": float(self.account.shards)}

"""The wait for the other ranks while a process group forms: says which ranks are missing, and why that may be."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer

import torch.distributed as dist
from accelerate.utils.environment import get_cpu_distributed_information
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.launcher import master_port
from wavegan_dist.log import log

REPORT_AFTER = 10.0  # seconds
NAMED = 8  # missing ranks that a message names


class RollCall:
    """Registers this rank in the key-value store from which the process group forms, and finds out which ranks are missing.

    Reads rank, world size, MASTER_ADDR and MASTER_PORT from the environment. Raises UsageError if MASTER_PORT is not a port.
    """

    def __init__(self) -> None:
        group = get_cpu_distributed_information()  # of any launcher that accelerate knows, on GPUs, too
        self.rank, self.world_size = group.rank, group.world_size
        self.address = os.environ.get("MASTER_ADDR", "")
        self.port = master_port()
        self._store: Store | None = None

    def register(self, timeout: timedelta) -> None:
        """Connect to the store, and write this rank and its host name to it. Rank 0 first serves it, unless torchrun does.

        Raises:
            RuntimeError: the store does not answer within `timeout`, or its port is in use.
        """
        serves = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        # Multi-tenant: torch.distributed then uses the same server. Waiting for workers would count this client as a rank.
        store = TCPStore(self.address, self.port, is_master=serves, timeout=timeout, wait_for_workers=False, multi_tenant=True)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store of torchrun outlives a restart
        self._store = PrefixStore(f"wavegan/{attempt}", store)
        self._store.set(str(self.rank), socket.gethostname())

    def describe(self) -> str:
        """Return one line: which ranks have not registered, and why that may be. May be called before `register` returns."""
        where = f"{self.address}:{self.port}"
        if self.rank == 0 and self._store is None:
            return (
                f"rank 0 cannot serve {where} (MASTER_ADDR:MASTER_PORT); set MASTER_PORT (--main_process_port) to a free port"
            )
        missing = self._missing()
        if not missing:
            return (
                f"all {self.world_size} processes have started but cannot connect to each other; check that the network lets "
                "them, and which interface GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names"
            )
        named = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        ranks = f"rank {named} is" if len(missing) == 1 else f"{len(missing)} ranks ({named}) are"
        return (
            f"{ranks} missing of the {self.world_size} that WORLD_SIZE asks for: not started yet, ended, or unable to reach "
            f"{where} (MASTER_ADDR:MASTER_PORT); if you did not start them, unset WORLD_SIZE, RANK and LOCAL_RANK"
        )

    def _missing(self) -> list[int]:
        if self._store is None:
            return [0]
        try:
            return [rank for rank in range(self.world_size) if not self._store.check([str(rank)])]
        except RuntimeError:  # rank 0, which serves the store, has ended
            return [0]


@contextmanager
def report_missing_ranks(cpu: bool, timeout: timedelta) -> Iterator[None]:
    """Register this rank with the others, then run the block, which joins the process group; say which ranks are missing.

    Logs a warning if the block has not ended after REPORT_AFTER (10) seconds. If the environment describes a single process, or
    MPI forms the group, only runs the block.

    Args:
        cpu: whether the processes use CPUs. If not, accelerate forms a group only if LOCAL_RANK is set.
        timeout: how long this rank waits for the store of the group; the block's waiting is not limited.

    Raises:
        UsageError: the environment does not say where rank 0 is, or MASTER_PORT is not a port.
        WaveganError: the store did not answer, or the block raised a RuntimeError while several processes join.
    """
    roll_call = RollCall()
    alone = roll_call.world_size <= 1
    has_local_rank = os.environ.get("LOCAL_RANK", "-1") != "-1"
    if alone and has_local_rank and not roll_call.address:  # accelerate would form a group of one process
        raise UsageError(
            "LOCAL_RANK is set, but MASTER_ADDR is not: no launcher started this process; unset LOCAL_RANK, RANK and "
            "WORLD_SIZE, or start the process with accelerate launch or torchrun"
        )
    if alone or not (cpu or has_local_rank) or (dist.is_mpi_available() and cpu):  # MPI forms its groups without a store
        yield
        return
    if not roll_call.address:
        raise UsageError(
            f"the launcher started {roll_call.world_size} processes, but MASTER_ADDR is not set; set it to the host name of "
            "rank 0 (127.0.0.1 on one machine), or start the processes with accelerate launch or torchrun"
        )
    timer = Timer(REPORT_AFTER, _warn, [roll_call])
    timer.daemon = True
    timer.start()
    try:
        roll_call.register(timeout)
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise WaveganError(f"the process group did not form ({reason}): {roll_call.describe()}") from error
    finally:
        timer.cancel()


def _warn(roll_call: RollCall) -> None:
    log.warning("still waiting after %.0f s: %s", REPORT_AFTER, roll_call.describe())

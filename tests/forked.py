"""Python programs that start in milliseconds: forked from a server that has imported PyTorch and this package.

A new Python process needs six seconds of CPU time to import what `wavegan train` needs, and the tests start hundreds of them.
In a forked program, modules were imported before its environment variables were set, and /proc/self/cmdline is that of the
server. Programs for which this matters are started with `subprocess`.
"""

import atexit
import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

PRELOADED = ["accelerate", "torch._dynamo", "torch.distributed.checkpoint", "wavegan_dist.cli", "wavegan_dist.train.loop"]


@functools.cache
def forkserver() -> ForkServerContext:
    """Start the server, whose programs compute with one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # is read when PyTorch is imported
        ensure_running()
    return context


class ForkedProgram:
    """A running program; reads no input.

    Args:
        command: the arguments of Python: a script's path, or `-m` and a module, then the program's arguments.
        env: all environment variables.
        cwd: working directory.

    Attributes:
        pid: process ID. The process leads a session of its own.
    """

    def __init__(self, command: Sequence[object], env: dict[str, str], cwd: Path | None = None) -> None:
        self.args = [str(word) for word in command]
        self._outputs = [tempfile.NamedTemporaryFile("r", prefix="forked-") for _ in range(2)]  # noqa: SIM115
        paths = [output.name for output in self._outputs]
        self._process = forkserver().Process(target=_run, args=(self.args, env, str(cwd or Path.cwd()), paths))
        self._process.start()
        self.pid = self._process.pid

    def finish(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end of the program.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds; it is killed.
        """
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout, *self._read())
        return subprocess.CompletedProcess(self.args, code, *self._read())

    def kill(self) -> None:
        """Kill the program and its children, if it still runs."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):  # it does not lead a session yet
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()

    def _read(self) -> list[str]:
        texts = [output.read() for output in self._outputs]
        for output in self._outputs:
            output.close()
        return texts


def _run(command: list[str], env: dict[str, str], cwd: str, outputs: list[str]) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), descriptor)
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]  # this is no worker process
    multiprocessing.set_start_method("fork", force=True)  # Python 3.11's default
    try:
        if command[0] == "-m":
            sys.argv, sys.path[0] = command[1:], cwd
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
            runpy.run_path(command[0], run_name="__main__")
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # in this order, as a new process does
        atexit._run_exitfuncs()

"""Signals: none is lost once they no longer end the process."""

import os
import signal
import time

import pytest

from wavegan_dist.train.signals import Signals, _do_nothing


def test_a_signal_that_comes_as_soon_as_it_no_longer_ends_the_process_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    install = signal.signal

    def install_and_send(number: signal.Signals, handler: object) -> object:
        before = install(number, handler)  # type: ignore[arg-type]
        if handler is _do_nothing:
            os.kill(os.getpid(), number)
        return before

    monkeypatch.setattr(signal, "signal", install_and_send)
    with Signals() as signals:
        deadline = time.monotonic() + 10
        while not signals.received and time.monotonic() < deadline:
            time.sleep(0.01)
    assert signals.received

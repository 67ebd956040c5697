"""SIGTERM and SIGINT: at once outside the training, after it when it asks to be let finish."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from data_io import errors
from search.signals import Ended, Signals

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    made = Signals()
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, errors.PREEMPTED), (signal.SIGINT, errors.INTERRUPTED)])
def test_a_signal_ends_the_process_with_its_code(signals: Signals, number: int, code: int) -> None:
    with pytest.raises(Ended) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == code


def test_patient_work_is_finished_first(signals: Signals) -> None:
    done = []

    def work() -> None:
        with signals.patiently():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(signals.received)

    with pytest.raises(Ended):
        work()
    assert done == [signal.SIGTERM]


def test_a_second_signal_does_not_wait(signals: Signals) -> None:
    def work() -> None:
        with signals.patiently():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on after the second signal")

    with pytest.raises(Ended):
        work()

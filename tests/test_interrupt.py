"""Stop signals: noted, not obeyed at once, and given back."""

import os
import signal
import threading

import pytest

from hypercircuit.train.interrupt import StopSignals

NAMES = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"]


@pytest.mark.parametrize("name", NAMES)
def test_signal_is_noted_and_handler_restored(name: str):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.requested is None
        os.kill(os.getpid(), number)
        assert signals.requested == name
    assert signal.getsignal(number) is before
    assert signals.requested == name


def test_first_signal_is_kept():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested == "SIGUSR1"


def test_second_interrupt_raises_and_restores():
    before = signal.getsignal(signal.SIGINT)
    signals = StopSignals()

    def interrupt_twice() -> None:
        with signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.requested == "SIGINT"
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    assert signals.requested == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_are_restored_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_nested_managers_give_back_in_order():
    with StopSignals() as outer:
        with StopSignals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert (inner.requested, outer.requested) == ("SIGTERM", "SIGTERM")


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_reuse_forgets_and_double_entry_is_refused():
    signals = StopSignals()
    with signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(RuntimeError, match="already entered; make one object per with block"):
            signals.__enter__()
    with signals:
        assert signals.requested is None


def test_other_threads_catch_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopSignals() as signals:
            seen.append((signals.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_a_signal_before_an_inner_block_reaches_it():
    with StopSignals() as outer:
        os.kill(os.getpid(), signal.SIGUSR1)
        with StopSignals() as inner:
            assert inner.requested == "SIGUSR1"
    assert outer.requested == "SIGUSR1"


def test_a_signal_in_an_inner_block_reaches_the_outer_one():
    with StopSignals() as outer:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.requested == "SIGTERM"
        with StopSignals() as later:
            assert later.requested == "SIGTERM"


def test_interrupts_of_inner_blocks_count():
    def interrupt_inside_and_outside() -> None:
        with StopSignals():
            with StopSignals():
                os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_inside_and_outside()

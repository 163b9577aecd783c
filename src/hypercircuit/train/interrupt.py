"""Stop signals: turn them into a request that the training loop reads between steps.

Slurm sends SIGUSR1 or SIGTERM before the time limit, a terminal sends SIGINT and
SIGHUP. Killing a step half-way would lose it, so a signal only sets a name::

    with StopSignals() as signals:
        while step < steps and signals.requested is None:
            ...                          # one step
    # the previous handlers are back; save, and exit as `signals.requested` asks
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")


class StopSignals:
    """Context manager that notes the first of SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP.

    A second SIGINT raises KeyboardInterrupt at once. A signal that was ignored on
    entry stays ignored (SIGHUP under nohup). Outside the main thread, where Python
    allows no handlers, nothing is caught and `requested` stays None. A block within another
    one's starts with the signal that reached the outer one, and hands its own over at its end.

    Attributes:
        requested: name of the first signal caught, as "SIGTERM", or None.

    Raises:
        RuntimeError: the same object is entered twice.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._interrupts = 0
        self._previous: dict[int, Any] | None = None
        self._outer: StopSignals | None = None

    def __enter__(self) -> "StopSignals":
        if self._previous is not None:
            raise RuntimeError("StopSignals is already entered; make one object per with block")
        self.requested = None
        self._interrupts = 0
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)  # Windows has only two of them
                if number is None or signal.getsignal(number) in (signal.SIG_IGN, None):
                    continue
                before = self._previous[number] = signal.signal(number, self._note)
                outer = getattr(before, "__self__", None)
                if isinstance(outer, StopSignals):
                    self._outer = outer
        if self._outer is not None and self.requested is None:
            self.requested = self._outer.requested
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in (self._previous or {}).items():
            signal.signal(number, handler)
        self._previous = None
        if self._outer is not None:
            self._outer.requested = self._outer.requested or self.requested
            self._outer._interrupts += self._interrupts
        self._outer = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        if self.requested is None:
            self.requested = signal.Signals(number).name


@contextlib.contextmanager
def stop_where_nothing_is_lost() -> Iterator[None]:
    """Turn the stop signals into KeyboardInterrupt, as SIGINT is, outside of `StopSignals`.

    For a whole command, between whose guarded parts there is nothing to save. Handlers that are
    not the default stay.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)

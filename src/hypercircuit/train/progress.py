"""What a run shows while it trains: a bar in a terminal, plain lines in a log file.

`Progress` is the setting, and `Progress.start` makes the display of one run::

    with Progress().start(steps, initial=step) as display:
        display.update(step, energy=0.51, gradient_norm=0.02)
        display.evaluated(0.901)

    energy 0.5100 |grad| 2.0e-02 best val 90.10%:  12%|##      | 500/4000 [00:30<03:30]
"""

import math
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from tqdm import tqdm


class ProgressDisplay(ABC):
    """The display of one run: a context manager that is told of steps and evaluations."""

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def update(
        self, step: int, *, energy: float | None = None, gradient_norm: float | None = None
    ) -> None:
        """Show that `step` steps of the whole run are done; energy in nats per example."""

    @abstractmethod
    def evaluated(self, accuracy: float, *, on: str = "val") -> None:
        """Note an accuracy in [0, 1] on the examples called `on`.

        The best so far is shown. NaN is passed over.
        """

    @abstractmethod
    def write(self, message: str) -> None:
        """Print a line without disturbing the display."""

    @abstractmethod
    def close(self) -> None:
        """Finish the display; may be called again."""


@dataclass(frozen=True)
class Progress:
    """How progress is shown.

    Attributes:
        enabled: False shows nothing at all.
        log_seconds: time between two lines where stderr is not a terminal, at least 0.

    Raises:
        ValueError: `log_seconds` is negative or NaN.
    """

    enabled: bool = True
    log_seconds: float | int = 30.0

    def __post_init__(self) -> None:
        if not self.log_seconds >= 0:
            raise ValueError(
                f"log_seconds must be at least 0, got {self.log_seconds}; for no lines at all "
                "set enabled=False"
            )

    def start(
        self, steps: int, *, initial: int = 0, unit: str = "step", energy: str = "energy"
    ) -> ProgressDisplay:
        """Return the display of a run of `steps` steps, of which `initial` are done.

        `unit` is what a step is called, `energy` what its energy is.
        """
        if not self.enabled:
            return _Nothing()
        if sys.stderr.isatty():
            return _Bar(steps, initial, unit, energy)
        return _Lines(steps, initial, self.log_seconds, unit, energy)


class _Nothing(ProgressDisplay):
    def update(
        self, step: int, *, energy: float | None = None, gradient_norm: float | None = None
    ) -> None:
        pass

    def evaluated(self, accuracy: float, *, on: str = "val") -> None:
        pass

    def write(self, message: str) -> None:
        pass

    def close(self) -> None:
        pass


class _Bar(ProgressDisplay):
    def __init__(self, steps: int, initial: int, unit: str, energy: str) -> None:
        self._best, self._energy = _Best(), energy
        self._bar = tqdm(
            total=steps, initial=initial, file=sys.stderr, dynamic_ncols=True, unit=unit
        )

    def update(
        self, step: int, *, energy: float | None = None, gradient_norm: float | None = None
    ) -> None:
        text = _summary(self._energy, energy, gradient_norm, self._best)
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(step - self._bar.n)

    def evaluated(self, accuracy: float, *, on: str = "val") -> None:
        self._best.note(accuracy, on)

    def write(self, message: str) -> None:
        self._bar.write(message, file=self._bar.fp)

    def close(self) -> None:
        self._bar.close()


class _Lines(ProgressDisplay):
    def __init__(
        self, steps: int, initial: int, log_seconds: float | int, unit: str, energy: str
    ) -> None:
        self._steps, self._step, self._unit, self._energy = steps, initial, unit, energy
        self._log_seconds, self._stream = log_seconds, sys.stderr
        self._best = _Best()
        self._summary: str | None = None
        self._first: tuple[int, float] | None = None  # after the first step, which compiles
        self._printed_at = -math.inf
        self._printed_step: int | None = None

    def update(
        self, step: int, *, energy: float | None = None, gradient_norm: float | None = None
    ) -> None:
        now = time.monotonic()
        self._step = step
        self._summary = _summary(self._energy, energy, gradient_norm, self._best)
        if self._first is None:
            self._first = (step, now)
        if now - self._printed_at >= self._log_seconds:
            self._print(now)

    def evaluated(self, accuracy: float, *, on: str = "val") -> None:
        self._best.note(accuracy, on)

    def write(self, message: str) -> None:
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        if self._summary is not None and self._printed_step != self._step:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._printed_at, self._printed_step = now, self._step
        shown = f"{self._summary} {self._time_left(now)}".strip()
        self.write(f"{self._unit} {self._step}/{self._steps} {shown}")

    def _time_left(self, now: float) -> str:
        assert self._first is not None
        step, start = self._first
        if self._step == step:
            return "time left unknown"
        seconds = (now - start) / (self._step - step) * (self._steps - self._step)
        return f"time left {tqdm.format_interval(seconds)}"


class _Best:
    """The best accuracy so far, and on which examples."""

    def __init__(self) -> None:
        self._accuracy, self._on = -math.inf, ""

    def note(self, accuracy: float, on: str) -> None:
        self._accuracy, self._on = max(self._accuracy, accuracy), on

    def __str__(self) -> str:
        known = self._accuracy > -math.inf
        return f" best {self._on} {self._accuracy:.2%}" if known else ""


def _summary(name: str, energy: float | None, gradient_norm: float | None, best: _Best) -> str:
    text = "" if energy is None else f"{name} {energy:.4f}"
    if gradient_norm is not None:
        text += f" |grad| {gradient_norm:.1e}"
    return f"{text}{best}"

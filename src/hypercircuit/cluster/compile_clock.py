"""How long XLA compiles, with nothing kept from an earlier start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from .compile_cache import MIN_COMPILE_SECONDS

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Read no compiled programs of earlier starts, and keep none."""
    before = jax.config.values["jax_enable_compilation_cache"]
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(used: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", used)
    # JAX looks at the option at its first program only.
    compilation_cache.reset_cache()


class CompileClock:
    """Counts, while it is entered, the seconds of programs that a compile cache would keep."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __enter__(self) -> CompileClock:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def lap(self) -> float:
        """Seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _listen(self, event: str, duration_secs: float, **more: Any) -> None:
        if event == _COMPILED and duration_secs >= MIN_COMPILE_SECONDS:
            self._seconds += duration_secs

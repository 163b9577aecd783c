"""How many threads linear algebra on the host may use."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from threadpoolctl import ThreadpoolController


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextlib.contextmanager
def one_lapack_thread() -> Iterator[None]:
    """Factorise small matrices on one thread.

    Several threads gain nothing there, and where other work occupies the cores they wait for each
    other: a QR of 200 x 100 then takes 0.7 s instead of 0.4 ms.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield

"""Tests run with float64 available; those of float32 ask for it explicitly."""

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_enable_x64", True)

#: Modules about what JAX does by default, in 32 bits.
DEFAULT_PRECISION = {"test_checkpoint", "test_history"}


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in its module's precision."""
    with jax.enable_x64(request.module.__name__ not in DEFAULT_PRECISION):
        yield

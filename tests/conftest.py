"""Tests run with float64 available; those of float32 ask for it explicitly."""

from collections.abc import Iterator

import jax
import pytest
from threadpoolctl import threadpool_limits

jax.config.update("jax_enable_x64", True)
# Two workers share the cores: threads of small factorisations would wait for each other.
threadpool_limits(1, user_api="blas")

#: Modules about what JAX does by default, in 32 bits.
DEFAULT_PRECISION = {"test_checkpoint", "test_history"}


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in its module's precision."""
    with jax.enable_x64(request.module.__name__ not in DEFAULT_PRECISION):
        yield

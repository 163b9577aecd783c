"""Tests run with float64 available; those of float32 ask for it explicitly."""

import os
import subprocess
import sys
from collections.abc import Iterator

import jax
import pytest
from threadpoolctl import threadpool_limits

jax.config.update("jax_enable_x64", True)
# Two workers share the cores: threads of small factorisations would wait for each other.
threadpool_limits(1, user_api="blas")

#: Modules about what JAX does by default, in 32 bits.
DEFAULT_PRECISION = {"test_checkpoint", "test_history"}
#: Modules of a few long tests: started first, so that no worker is left alone with them.
LONG = ("test_experiments", "test_slurm", "test_distributed", "test_sweep", "test_cli")
#: Most of the time is compiling, and XLA's older code generator takes half as long.
OLDER = "--xla_cpu_use_fusion_emitters=false"


def pytest_configure(config: pytest.Config) -> None:
    """Let the tests' own processes compile with `OLDER`, the commands they start as users do."""
    if "XLA_FLAGS" not in os.environ:
        known = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": OLDER},
            capture_output=True,
        )
        if known.returncode == 0:
            os.environ["XLA_FLAGS"] = OLDER  # workers inherit it
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    if os.environ.get("XLA_FLAGS") == OLDER:
        jax.devices()  # reads the flags
        del os.environ["XLA_FLAGS"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test in its module's precision."""
    with jax.enable_x64(request.module.__name__ not in DEFAULT_PRECISION):
        yield

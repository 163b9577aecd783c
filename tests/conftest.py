"""Tests run with float64 available; those of float32 ask for it explicitly."""

import os
import subprocess
import sys
from collections.abc import Iterator

import jax
import jaxtyping
import pytest
from threadpoolctl import threadpool_limits

jax.config.update("jax_enable_x64", True)
# Two workers share the cores: threads of small factorisations would wait for each other.
threadpool_limits(1, user_api="blas")

#: Modules about what JAX does by default, in 32 bits.
DEFAULT_PRECISION = {"test_checkpoint", "test_history"}
#: Modules of a few long tests: started first, so that no worker is left alone with them.
LONG = ("test_experiments", "test_slurm", "test_distributed", "test_sweep", "test_cli")
#: XLA compiles in less than half the time; most of the tests' time is compiling.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"


def pytest_configure(config: pytest.Config) -> None:
    """Let XLA compile quickly in the processes of the tests; commands they start compile as usual,
    and so do slow tests, which compute for longer than they compile."""
    if "XLA_FLAGS" not in os.environ and config.getoption("markexpr") == "not slow":
        known = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": QUICK},
            capture_output=True,
        )
        if known.returncode == 0:  # XLA ends a process whose flags it does not know
            os.environ["XLA_FLAGS"] = QUICK
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # the workers inherit the flags
    if os.environ.get("XLA_FLAGS") == QUICK:
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


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Call the package as outside of the tests, where annotations are not executed."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

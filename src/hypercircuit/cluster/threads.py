"""Threads of XLA, BLAS and OpenMP as many as the cores that a job has.

XLA on the CPU counts the cores of the affinity mask and takes another number from `PJRT_NPROC` or
`NPROC`, when its client starts; it does not look at a cgroup's quota or at `SLURM_CPUS_PER_TASK`.
Where a cluster binds no cores (Slurm's task/none), a job of 4 cores on a node of 128 would start
128 threads. BLAS is loaded with NumPy, earlier than a command starts, and is told afterwards; the
variables are for it in processes that this one starts.

Numbers that the user has set stay.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from threadpoolctl import threadpool_limits

from .._cores import CPULimit

#: Read by XLA; the first that is set counts.
XLA_VARIABLES = ("PJRT_NPROC", "NPROC")
#: Read by the libraries that NumPy may be built with.
BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OTHER_VARIABLES = ("NUMBA_NUM_THREADS",)


def thread_settings(environment: MutableMapping[str, str], limit: CPULimit) -> dict[str, str]:
    """The variables to set so that the libraries use `limit.usable` threads.

    None where the affinity mask says the same, which all of them follow, and none of a group of
    which the user has set one.
    """
    if limit.usable >= limit.affinity:
        return {}
    settings = {}
    for group in (XLA_VARIABLES, BLAS_VARIABLES, OTHER_VARIABLES):
        if not any(environment.get(name) for name in group):
            # Of XLA's own two only the first is needed.
            names = group[:1] if group is XLA_VARIABLES else group
            settings.update(dict.fromkeys(names, str(limit.usable)))
    return settings


def limit_threads(
    environment: MutableMapping[str, str], limit: CPULimit | None = None
) -> dict[str, str]:
    """Set what `thread_settings` says, in `environment` and in the BLAS that is loaded.

    To be called before JAX's first computation. Returns what was set.
    """
    settings = thread_settings(environment, limit or CPULimit.of_process(environment))
    environment.update(settings)
    if BLAS_VARIABLES[0] in settings:
        threadpool_limits(int(settings[BLAS_VARIABLES[0]]), user_api="blas")
    return settings

"""The cost model of a run: formulas of work, linear laws through measurements, suggestions.

Operations of one step are counted by formulas, in which N is the number of qubits, p the depth, D
the bond dimension of the doubled state (4 at depth 3 and 4), B the examples of a batch and n those
of the data; a gradient costs two more forward passes::

    state         6 N p D^2
    cumulant      6 B N D^2 (order / 2)
    exact         24 B f s D^2       f frequencies and s qubits that an example has, on average
    sampled       6 S N D^2 + 2 S B N                              S networks drawn
    statevector   18 N p 2^N        + n 2^N once                   all the losses
    mpo           12 N (M D^2 + M^2 D) + 50 n N M^2 once           M the operators' bond
    contraction   what cotengra counts
    optimiser     10 P                                             P angles

They say how large a measurement may be: a step whose operations take longer than the time budget,
at `SLOW_RATE`, is not carried out, but two with fewer examples are. Every time is linear in the
number m of examples, ``seconds(m) = a + b m``, which two measurements determine. The whole is::

    seconds = start + data and loss + preparation + compilation + steps x step
              + evaluations x evaluation + checkpoints x checkpoint + decoding + final energy
              + steps x exchange, of several processes
              + further compressions and measurements of the trust region, of operators
    bytes   = high-water mark of the measured stages + (what XLA plans for the full step
              - what it planned for the largest step that was carried out)

Of K processes each has ceil(B / K) examples of a step and a share of the final energy's, and they
exchange the gradient after every step: ``EXCHANGE_SECONDS + 2 bytes / EXCHANGE_RATE``, assumed. All
the rest is process 0's.

How often operators are compressed again depends on the way of the state. `FURTHER_COMPRESSIONS` are
assumed in the state's metric, as in experiment 05, each as long as the first, and none in the
uniform one; a small `mpo.trust` or `mpo.max_bond` takes more.

Suggested are `MEMORY_MARGIN` times the bytes for every process of a node, and `TIME_MARGIN` times
the seconds and a minute.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

#: Operations per second that any machine reaches in these kernels.
SLOW_RATE = 2e8
MEMORY_MARGIN, TIME_MARGIN = 1.5, 1.5
#: Bytes per second between processes, and seconds of waiting: Ethernet of 1 Gbit/s, without tuning.
EXCHANGE_RATE, EXCHANGE_SECONDS = 1e8, 1e-3
#: Of operators in the state's metric, after the first compression.
FURTHER_COMPRESSIONS = 2
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the formulas are of.

    **Attributes:**

    - `n_qubits`, `depth`, `doubled_bond`, `n_params`: of circuit and state.
    - `batch`, `n_examples`: examples of a step, and of the data.
    - `frequencies`, `touched`: of an example, on average.
    - `order`, `samples`, `operator_bond`: of the energy.
    - `contraction_flops`: of a batch, by cotengra.
    """

    n_qubits: int
    depth: int
    doubled_bond: int
    n_params: int
    batch: int
    n_examples: int
    frequencies: float = 0.0
    touched: float = 0.0
    order: int = 2
    samples: int = 0
    operator_bond: int = 0
    contraction_flops: float = 0.0


def _state(s: Sizes) -> float:
    return 6.0 * s.n_qubits * s.depth * s.doubled_bond**2


def _cumulant(s: Sizes) -> float:
    return _state(s) + 3.0 * s.order * s.batch * s.n_qubits * s.doubled_bond**2


def _exact(s: Sizes) -> float:
    return _state(s) + 24.0 * s.batch * s.frequencies * s.touched * s.doubled_bond**2


def _sampled(s: Sizes) -> float:
    drawn = 6.0 * s.samples * s.n_qubits * s.doubled_bond**2
    return _state(s) + drawn + 2.0 * s.samples * s.batch * s.n_qubits


def _statevector(s: Sizes) -> float:
    return 18.0 * s.n_qubits * s.depth * 2.0**s.n_qubits


def _operators(s: Sizes) -> float:
    bond, doubled = s.operator_bond, s.doubled_bond
    return _state(s) + 12.0 * s.n_qubits * (bond * doubled**2 + bond**2 * doubled)


#: Operations of a step's energy and gradient by the kind of energy. A state of another kind (one
#: with a truncated bond, say) registers its own function of the sizes under its own name.
STEP_FLOPS: dict[str, Callable[[Sizes], float]] = {
    "cumulant": _cumulant,
    "exact": _exact,
    "sampled": _sampled,
    "statevector": _statevector,
    "mpo": _operators,
    "contraction": lambda s: s.contraction_flops,
}
#: Operations before the first step, where there are any.
START_FLOPS: dict[str, Callable[[Sizes], float]] = {
    "statevector": lambda s: s.n_examples * 2.0**s.n_qubits,
    "mpo": lambda s: 50.0 * s.n_examples * s.n_qubits * s.operator_bond**2,
}


def step_flops(kind: str, sizes: Sizes) -> float:
    """Operations of one step.

    **Raises:** `ValueError` for a kind of energy without a formula.
    """
    if kind not in STEP_FLOPS:
        raise ValueError(f"no formula for energy {kind!r}; there are {', '.join(STEP_FLOPS)}")
    return STEP_FLOPS[kind](sizes) + 10.0 * sizes.n_params


def start_flops(kind: str, sizes: Sizes) -> float:
    """Operations before the first step."""
    return START_FLOPS[kind](sizes) if kind in START_FLOPS else 0.0


def exchange_seconds(n_bytes: int) -> float:
    """To sum a gradient of that size over processes."""
    return EXCHANGE_SECONDS + 2 * n_bytes / EXCHANGE_RATE


def trust_checks(metric: str, steps: int, check_every: int) -> int:
    """How often training measures whether the operators are still good where the state is."""
    return 0 if metric == "uniform" else (steps - 1) // check_every


def measured_sizes(full: int, flops: float, budget: float) -> tuple[int, ...]:
    """Of how many examples to measure a stage that has `flops` for `full` of them.

    `full` itself where that fits into `budget` seconds at `SLOW_RATE`; else two numbers, a
    sixteenth and a quarter of `full`, or less as the budget asks for.
    """
    if flops <= budget * SLOW_RATE or full < 4:
        return (full,)
    most = max(2, min(full // 4, int(full * budget * SLOW_RATE / flops)))
    return (max(1, most // 4), most)


def extrapolate(sizes: Sequence[int], values: Sequence[float], to: int) -> float:
    """The line through one or two measurements, at `to`; what falls with the size is constant."""
    if len(sizes) == 1:
        return values[0]
    (small, large), (low, high) = sizes, values
    slope = max(0.0, (high - low) / (large - small))
    return high + slope * (to - large)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a run.

    **Attributes:**

    - `inputs`: what the formula was given, in words.
    - `count`, `seconds_each`: how often, and what each takes.
    - `bytes`: of memory at its end, the highest so far in the process.
    - `how`: "measured", "extrapolated" or "assumed".
    """

    name: str
    inputs: str
    count: int
    seconds_each: float
    bytes: float
    how: str

    @property
    def seconds(self) -> float:
        """Of all of them."""
        return self.count * self.seconds_each


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take.

    **Attributes:**

    - `stages`: of the run, in order.
    - `peak_bytes`: of a process; `device_bytes`: that XLA plans for a step, on the device.
    - `flops`: of one step, by the formulas, and `rate`: operations per second that were reached.
    - `cores`: that the measurements had.
    - `processes`: of the run, and `processes_per_node`, all of them where the nodes are not known.
    - `slurm_cpus`: cores that a process of the job will have.
    - `grace`: seconds before its limit at which the job may be asked to end.
    """

    stages: tuple[Stage, ...]
    peak_bytes: float
    device_bytes: float
    flops: float
    rate: float
    device: str
    cores: int
    processes: int = 1
    processes_per_node: int = 1
    slurm_cpus: int = 0
    grace: int = 0

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_per_step(self) -> float:
        """Of one step with its exchange, without evaluations."""
        own = ("steps", "exchange")
        return sum(stage.seconds_each for stage in self.stages if stage.name in own)

    @property
    def suggested_bytes(self) -> int:
        """Memory of a node to ask for, in halves of GiB."""
        peak = self.processes_per_node * self.peak_bytes
        return math.ceil(MEMORY_MARGIN * peak / (_GIB / 2)) * (_GIB // 2)

    @property
    def suggested_minutes(self) -> int:
        """Time to ask for: the run's, and what a job is asked to end before its limit."""
        return math.ceil((TIME_MARGIN * self.seconds + 60 + self.grace) / 60)

    def describe(self) -> str:
        """A table of the stages, and the suggestion as options of sbatch."""
        width = max(len(stage.inputs) for stage in self.stages)
        lines = [
            f"{'stage':<18}{'of':<{width}}{'times':>8}{'s each':>10}{'s':>10}{'GiB':>7}  found"
        ]
        lines += [
            f"{stage.name:<18}{stage.inputs:<{width}}{stage.count:>8}{stage.seconds_each:>10.3g}"
            f"{stage.seconds:>10.1f}{stage.bytes / _GIB:>7.2f}  {stage.how}"
            for stage in self.stages
        ]
        hours, minutes = divmod(self.suggested_minutes, 60)
        each, node = "", ""
        if self.processes > 1:
            each = f" in each of {self.processes} processes"
            node = f", of {self.processes_per_node} processes on a node"
        lines += [
            f"a step: {self.flops:.2g} operations by the formulas of cluster/cost.py, "
            f"{self.rate / 1e9:.2g} GFLOP/s on {self.cores} cores ({self.device}); XLA plans "
            f"{self.device_bytes / _GIB:.2f} GiB for it",
            f"the run: {self.seconds:.0f} s = the sum of times x seconds each; peak "
            f"{self.peak_bytes / _GIB:.2f} GiB{each}",
            f"suggested: --time={hours}:{minutes:02d}:00 ({TIME_MARGIN:g} x the seconds + 60 s"
            f"{f' + {self.grace} s of grace' * bool(self.grace)}) "
            f"--mem={self.suggested_bytes // 2**20}M ({MEMORY_MARGIN:g} x the peak{node})",
        ]
        if self.slurm_cpus and self.slurm_cpus < self.cores:
            lines.append(
                f"measured on {self.cores} cores, and slurm.cpus={self.slurm_cpus}: the job will "
                "take longer; measure it inside of a job, or with `taskset`"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """All of it in numbers and strings; times in seconds, memory in bytes."""
        stages = [{**dataclasses.asdict(stage), "seconds": stage.seconds} for stage in self.stages]
        return {
            "stages": stages,
            "seconds_per_step": self.seconds_per_step,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "device_bytes": self.device_bytes,
            "flops_per_step": self.flops,
            "flops_per_second": self.rate,
            "device": self.device,
            "cores": self.cores,
            "processes": self.processes,
            "processes_per_node": self.processes_per_node,
            "suggested_bytes": self.suggested_bytes,
            "suggested_minutes": self.suggested_minutes,
        }

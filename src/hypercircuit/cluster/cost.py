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

Truncated and free states are swept as the tensors of their sites, at the cube of their bond X, with
q layers that truncate (0 of a free state), and W operations for an example's exact energy, which
`energy.exact.site_operations` counts::

    state         300 N (q + 1) X^3
    cumulant      96 B N X^3 (order / 2)
    exact         3 B W
    sampled       48 S N X^2 + 2 S B N
    statevector   48 2^N X          + n 2^N once
    mpo           N (96 M X^3 + 48 M^2 X^2) + 50 n N M^2 once

They say how large a measurement may be: a step whose operations take longer than the time budget,
at `SLOW_RATE`, is not carried out, but two with fewer examples are; with no fewer than
`LEAST_EXAMPLES` and four times as many, below which differences are noise, unless those would take
longer than the budget at `USUAL_RATE`.
Every time is linear in the number m of examples, ``seconds(m) = a + b m``, which two measurements
determine. Nothing is read from a compile cache. The whole is::

    seconds = start + data and loss + preparation + compilation + steps x step
              + evaluations x evaluation + checkpoints x checkpoint + decoding + final energy
              + steps x exchange, of several processes
              + further compressions and measurements of the trust region, of operators
    bytes   = high-water mark of the measured stages + (what XLA plans for the full step
              - what it planned for the largest step that was carried out)

Of K processes each has ceil(B / K) examples of a step, with cumulants 1 / K of the sites of an
exact state and what lies within reach of them, and a share of the final energy's examples (the
formula of a step counts the whole state). In every step they exchange the gradient, and what they
make of the state with its derivatives: ``EXCHANGE_SECONDS + 2 bytes / EXCHANGE_RATE``,
assumed. All the rest is process 0's.

How often operators are compressed again depends on the way of the state. `FURTHER_COMPRESSIONS` are
assumed in the state's metric, as in experiment 05, each as long as the first, and none in the
uniform one; a small `mpo.trust` or `mpo.max_bond` takes more.

All of it is a first start. One that finds its programs in the compile cache reads them in
`LOAD_SHARE` of the time that XLA took for them, and traces and lowers as before::

    seconds with compiled programs = seconds - (1 - LOAD_SHARE) x seconds of XLA

Suggested are `MEMORY_MARGIN` times the bytes for every process of a node, and `TIME_MARGIN` times
the seconds of a first start and a minute.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

#: Operations per second that any machine reaches in these kernels.
SLOW_RATE = 2e8
#: Operations per second that most machines reach.
USUAL_RATE = 2e9
#: The smaller of two measured numbers of examples is at least this, if it can be.
LEAST_EXAMPLES = 4
#: Reading a compiled program, as a share of the seconds that XLA took to compile it; measured.
LOAD_SHARE = 0.05
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
    - `site_bond`: of a truncated or free state, 0 of others; `truncations`: layers that truncate.
    - `example_flops`: of an example's exact energy in such a state.
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
    site_bond: int = 0
    truncations: int = 0
    example_flops: float = 0.0


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


def _sites(s: Sizes) -> float:
    return 300.0 * s.n_qubits * (s.truncations + 1) * s.site_bond**3


def _site_cumulant(s: Sizes) -> float:
    return _sites(s) + 48.0 * s.order * s.batch * s.n_qubits * s.site_bond**3


def _site_sampled(s: Sizes) -> float:
    drawn = 48.0 * s.samples * s.n_qubits * s.site_bond**2
    return _sites(s) + drawn + 2.0 * s.samples * s.batch * s.n_qubits


def _site_operators(s: Sizes) -> float:
    bond, chi = s.operator_bond, s.site_bond
    return _sites(s) + s.n_qubits * (96.0 * bond * chi**3 + 48.0 * bond**2 * chi**2)


#: Operations of a step's energy and gradient by the kind of energy, in exact states ..
STEP_FLOPS: dict[str, Callable[[Sizes], float]] = {
    "cumulant": _cumulant,
    "exact": _exact,
    "sampled": _sampled,
    "statevector": _statevector,
    "mpo": _operators,
    "contraction": lambda s: s.contraction_flops,
}
#: .. and in truncated and free ones.
SITE_FLOPS: dict[str, Callable[[Sizes], float]] = {
    "cumulant": _site_cumulant,
    "exact": lambda s: _sites(s) + 3.0 * s.batch * s.example_flops,
    "sampled": _site_sampled,
    "statevector": lambda s: _sites(s) + 48.0 * 2.0**s.n_qubits * s.site_bond,
    "mpo": _site_operators,
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
    formulas = SITE_FLOPS if sizes.site_bond else STEP_FLOPS
    if kind not in formulas:
        raise ValueError(f"no formula for energy {kind!r}; there are {', '.join(formulas)}")
    return formulas[kind](sizes) + 10.0 * sizes.n_params


def start_flops(kind: str, sizes: Sizes) -> float:
    """Operations before the first step."""
    return START_FLOPS[kind](sizes) if kind in START_FLOPS else 0.0


def exchange_seconds(n_bytes: int) -> float:
    """To sum a gradient of that size, or to gather and sum as much of a state, over processes."""
    return EXCHANGE_SECONDS + 2 * n_bytes / EXCHANGE_RATE


def trust_checks(steps: int, check_every: int) -> int:
    """How often training measures whether the operators are still good where the state is."""
    return (steps - 1) // check_every


def measured_sizes(full: int, flops: float, budget: float) -> tuple[int, ...]:
    """Of how many examples to measure a stage that has `flops` for `full` of them.

    `full` itself where that fits into `budget` seconds at `SLOW_RATE`; else two numbers, a
    sixteenth and a quarter of `full`, or less as the budget asks for, see above.
    """
    if flops <= budget * SLOW_RATE or full < 4:
        return (full,)
    most = max(2, min(full // 4, int(full * budget * SLOW_RATE / flops)))
    least = min(full, 4 * LEAST_EXAMPLES)
    if most < least and flops * least / full <= budget * USUAL_RATE:
        most = least
    return (full,) if most == full else (max(1, most // 4), most)


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
    - `compiled`: seconds of all of them in which XLA compiles what a compile cache keeps.
    """

    name: str
    inputs: str
    count: int
    seconds_each: float
    bytes: float
    how: str
    compiled: float = 0.0

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
        """Of the whole run, at its first start."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def compiled(self) -> float:
        """Of them, those in which XLA compiles what a compile cache keeps."""
        return sum(stage.compiled for stage in self.stages)

    @property
    def cached_seconds(self) -> float:
        """Of the whole run where the compile cache holds its programs."""
        return self.seconds - (1 - LOAD_SHARE) * self.compiled

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
            f"{'stage':<18}{'of':<{width}}{'times':>8}{'s each':>10}{'s':>10}{'XLA s':>8}{'GiB':>7}"
            "  found"
        ]
        lines += [
            f"{stage.name:<18}{stage.inputs:<{width}}{stage.count:>8}{stage.seconds_each:>10.3g}"
            f"{stage.seconds:>10.1f}{stage.compiled:>8.1f}{stage.bytes / _GIB:>7.2f}  {stage.how}"
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
            f"the run: {self.seconds:.0f} s at its first start = the sum of times x seconds each; "
            f"peak {self.peak_bytes / _GIB:.2f} GiB{each}",
            f"{self.cached_seconds:.0f} s with its programs in the compile cache: XLA's "
            f"{self.compiled:.0f} s are then {LOAD_SHARE * self.compiled:.1f} s of reading",
            f"suggested: --time={hours}:{minutes:02d}:00 ({TIME_MARGIN:g} x the seconds of a first "
            "start + 60 s"
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
            "command": "train",
            "stages": stages,
            "seconds_per_step": self.seconds_per_step,
            "seconds": self.seconds,
            "cached_seconds": self.cached_seconds,
            "compiled_seconds": self.compiled,
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

"""What a run will take, from a short measurement of its parts: `hypercircuit estimate`.

The run's own data, loss, step, evaluation, decoding and final energy are carried out once or a few
times each, at full size where the time budget allows it and at two smaller numbers of examples
otherwise; see [`cluster/cost.py`](cluster/cost.py) for the formulas.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ._cores import CPULimit
from ._precision import check_precision
from ._threads import one_lapack_thread
from .circuit import Ansatz, FreeMPS, Graph, Truncated
from .cluster.compile_clock import CompileClock, without_cache
from .cluster.cost import (
    FURTHER_COMPRESSIONS,
    Estimate,
    Sizes,
    Stage,
    exchange_seconds,
    extrapolate,
    measured_sizes,
    start_flops,
    step_flops,
    trust_checks,
)
from .config import Config, check_chain_size
from .config.sections import MPOConfig, RestartsConfig
from .config.slurm import SIGNAL_LEAD
from .data import Dataset, map_splits
from .decode import decode
from .energy import (
    MPO,
    Contraction,
    Cumulant,
    EnergyKind,
    Exact,
    Sampled,
    Statevector,
    sampled_energy,
    why_not_exact,
)
from .energy.exact import site_operations
from .hamiltonian import LossHamiltonian, compile_loss
from .methods import (
    Report,
    born_state,
    check_budget,
    check_shared,
    configured_contraction,
    configured_energy,
    configured_optimiser,
    configured_penalty,
)
from .problem import Problem, build_problem
from .study import diagnose
from .train import Schedule
from .train.probe import Probe

_FINAL_BATCH = 200
#: Examples of each part on which the scoring of networks is timed.
_SCORED = (128, 1024)
_MOST_STEPS = 20
#: The figures at the end.
_FIGURE_SECONDS = 1.0


class _Measured(NamedTuple):
    """Seconds of the parts of training with some number of examples, and planned bytes.

    `xla_*` are those of a part in which XLA compiles what a compile cache keeps; `exchanged` are
    the numbers that processes exchange for the state in every step.
    """

    prepare: float
    compile: float
    step: float
    evaluate_first: float
    evaluate: float
    trust: float
    save: float
    planned: float
    xla_prepare: float
    xla_compile: float
    xla_evaluate: float
    exchanged: float


@one_lapack_thread()
def estimate_run(
    config: Config,
    *,
    steps: int | None = None,
    budget: float = 20.0,
    processes: int | None = None,
    report: Report = print,
) -> Estimate:
    """What `hypercircuit train` of a configuration will take on machines like this one.

    The compile cache is neither read nor written meanwhile.

    A run of several processes is measured by the share of one of them, on its first device; call
    this with as many cores as one process will have.

    **Arguments:**

    - `steps`: instead of train.steps, at least 1.
    - `budget`: seconds for the timed repeats of the step, above 0; a stage that might take longer
      is measured with fewer examples. Compiling and `state.diagnostics` come on top.
    - `processes`: of the run, with one device each; None takes `slurm.processes`.

    **Raises:** `ValueError` for other numbers, and what a run refuses.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; leave it out for train.steps")
    if not budget > 0:
        raise ValueError(f"budget must be above 0 seconds, got {budget:g}; the default is 20")
    _report_others(config, report)
    processes = config.slurm.processes if processes is None else processes
    if processes < 1:
        raise ValueError(
            f"processes must be at least 1, got {processes}; leave it out for slurm.processes"
        )
    if processes > 1:
        check_shared(config)
    steps = config.train.steps if steps is None else steps
    check_precision(config.train.precision)
    with without_cache(), CompileClock() as clock:
        return _estimated(config, steps, budget, processes, report, clock)


def _report_others(config: Config, report: Report) -> None:
    """Say of what a configuration also has settings for that this is no estimate."""
    others = []
    if config.restarts != RestartsConfig():
        others.append("[restarts] is for `hypercircuit restarts`")
    if config.mpo != MPOConfig() and config.energy.kind != "mpo":
        others.append("[mpo] is for `hypercircuit compile` (or for energy.kind='mpo')")
    for other in others:
        report(f"this is an estimate of `hypercircuit train`; {other}, of which there is none")


def _estimated(
    config: Config,
    steps: int,
    budget: float,
    processes: int,
    report: Report,
    clock: CompileClock,
) -> Estimate:
    stages = [_stage("start", "Python and imports", 1, _process_seconds(), "measured")]
    begun = time.perf_counter()
    problem = build_problem(config)
    check_chain_size(config, problem.network.n_qubits, here=True)
    hamiltonian = compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    _params(config, problem).block_until_ready()
    seconds, n = time.perf_counter() - begun, hamiltonian.n_examples
    words = f"{n} examples"
    stages.append(_stage("data and loss", words, 1, seconds, "measured", clock.lap()))
    kind = configured_energy(config, hamiltonian, problem.circuit, report)
    if isinstance(kind, Contraction):
        check_budget(config, problem, hamiltonian, kind, report)
    name, sizes = _sizes(config, problem, hamiltonian, kind, processes)
    report(f"measuring, at most about {budget:g} s of steps and what they take to compile")

    complete = isinstance(kind, (MPO, Statevector))
    full = n if complete else sizes.batch
    flops = step_flops(name, sizes)
    wanted = measured_sizes(full, max(start_flops(name, sizes), flops), budget)
    found = [
        _measure(config, problem, hamiltonian, kind, m, full, budget, processes, clock)
        for m in wanted
    ]
    law = _Measured(*(extrapolate(wanted, column, full) for column in zip(*found, strict=True)))
    how = "measured" if wanted == (full,) else f"extrapolated from {wanted[0]} and {wanted[1]}"
    evaluations = -(-steps // config.train.evaluate_every)
    of = f"{sizes.n_qubits} qubits, {name}, {sizes.batch} examples"
    stages += [
        _stage("preparation", f"{n} examples", 1, law.prepare, how, law.xla_prepare),
        _stage("compile", of, 1, law.compile, how, law.xla_compile),
        _stage("steps", of, steps, law.step, how),
        _stage(
            "first evaluation",
            f"{config.energy.check_examples} examples checked",
            1,
            law.evaluate_first,
            how,
            law.xla_evaluate,
        ),
    ]
    if evaluations > 1:
        words = f"{config.energy.check_examples} examples checked"
        stages.append(_stage("evaluations", words, evaluations - 1, law.evaluate, how))
    if isinstance(kind, MPO):
        stages += _following(kind, steps, law, how)
    if processes > 1:
        exchanged = sizes.n_params + int(law.exchanged)
        seconds = exchange_seconds(exchanged * np.dtype(config.train.precision).itemsize)
        words = f"gradient{' and state' if law.exchanged else ''} of {processes} processes"
        stages.append(_stage("exchange", words, steps, seconds, "assumed"))
    saves = steps // config.train.checkpoint_every + 1
    stages.append(_stage("checkpoints", f"{sizes.n_params} angles", saves, law.save, how))
    stages.append(_decoding(config, problem, clock))
    stages += _final(config, problem, hamiltonian, sizes, law, budget, processes, clock)
    if isinstance(kind, MPO):
        words = "as long as one compression"
        stages.append(_stage("classical search", words, 1, law.prepare, "assumed"))
    if config.state.diagnostics:
        stages.append(_diagnosing(config, problem, hamiltonian, clock))
    stages.append(_stage("figures", "", 1, _FIGURE_SECONDS, "assumed"))
    more = max(0.0, law.planned - found[-1].planned)
    on_host = jax.devices()[0].platform == "cpu"
    return Estimate(
        tuple(stages),
        peak_bytes=_peak_bytes() + (more if on_host else 0.0),
        device_bytes=law.planned,
        flops=flops,
        rate=flops / law.step,
        device=jax.devices()[0].device_kind,
        cores=CPULimit.of_process().usable,
        processes=processes,
        processes_per_node=-(-processes // max(1, config.slurm.nodes)),
        slurm_cpus=config.slurm.cpus,
        grace=config.slurm.grace + SIGNAL_LEAD,
    )


def _doubled_bond(circuit: Ansatz) -> int:
    """The dimension of what is swept along the chain; a graph has none."""
    if isinstance(circuit, Graph):
        return 0
    return circuit.doubled_bond


def _sizes(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    kind: EnergyKind,
    processes: int,
) -> tuple[str, Sizes]:
    """The kind of energy by its name in the configuration, and what its formula needs.

    The batch is the share of one process.
    """
    circuit, n = problem.circuit, hamiltonian.n_examples
    terms = getattr(hamiltonian.terms, "n_terms", None)
    part = problem.splits.train.x[: min(n, 1000)]
    # Every output has weights of its own for each input.
    touched = hamiltonian.n_qubits * float((part != 0).mean())
    sizes = Sizes(
        n_qubits=hamiltonian.n_qubits,
        depth=1 if isinstance(circuit, FreeMPS) else circuit.depth,
        doubled_bond=_doubled_bond(circuit),
        n_params=int(np.prod(circuit.shape(hamiltonian.n_qubits))),
        batch=-(-_batch(config, n) // processes),
        n_examples=n,
        frequencies=64.0 if terms is None else float(np.mean(terms)),
        touched=touched,
    )
    sizes = with_site_tensors(sizes, hamiltonian, circuit)
    if isinstance(kind, Contraction):
        dtype = np.dtype(config.train.precision)
        chain: Any = circuit
        cost = kind.estimate(hamiltonian, chain, batch_size=sizes.batch, dtype=dtype)
        return "contraction", dataclasses.replace(sizes, contraction_flops=cost.flops)
    if isinstance(kind, Cumulant):
        return "cumulant", dataclasses.replace(sizes, order=kind.order)
    if isinstance(kind, Sampled):
        return "sampled", dataclasses.replace(sizes, samples=config.energy.samples)
    if isinstance(kind, MPO):
        return "mpo", dataclasses.replace(sizes, operator_bond=config.mpo.max_bond)
    return ("statevector" if isinstance(kind, Statevector) else "exact"), sizes


def with_site_tensors(sizes: Sizes, hamiltonian: LossHamiltonian, circuit: Ansatz) -> Sizes:
    """The sizes with what the formulas of truncated and free states need; of others as they are."""
    if not isinstance(circuit, (Truncated, FreeMPS)):
        return sizes
    n_qubits = hamiltonian.n_qubits
    bond, exact_layers = min(circuit.max_bond, 2 ** (n_qubits // 2)), sizes.depth
    if isinstance(circuit, Truncated):
        bond = min(bond, circuit.circuit.max_bond)
        exact_layers = circuit.exact_layers(n_qubits)
    return dataclasses.replace(
        sizes,
        site_bond=bond,
        truncations=sizes.depth - exact_layers,
        example_flops=sum(site_operations(hamiltonian, circuit)),
    )


def _batch(config: Config, n_examples: int) -> int:
    """Examples of a step, of all processes together."""
    return min(config.train.batch_size or n_examples, n_examples)


def _params(config: Config, problem: Problem) -> jax.Array:
    return problem.circuit.init(
        jax.random.key(config.train.seed),
        problem.network.n_qubits,
        how=config.circuit.init,
        scale=config.circuit.init_scale,
        dtype=np.dtype(config.train.precision),
    )


def _measure(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    kind: EnergyKind,
    size: int,
    full: int,
    budget: float,
    processes: int,
    clock: CompileClock,
) -> _Measured:
    """Carry out the parts of training with batches of `size` examples (`full` in the run)."""
    batch_size = size
    validation = problem.splits.validation
    if isinstance(kind, (MPO, Statevector)):
        # These take all the examples at once: fewer examples are less data.
        if size < full:
            hamiltonian = hamiltonian.subset(np.arange(size))
        batch_size = 0
    schedule = Schedule(
        steps=config.train.steps,
        batch_size=batch_size,
        check_examples=max(1, config.energy.check_examples * size // full),
    )
    clock.lap()
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(
            hamiltonian,
            problem.circuit,
            energy=kind,
            optimiser=configured_optimiser(config),
            penalty=configured_penalty(config),
            schedule=schedule,
            seed=config.train.seed,
            params=_params(config, problem),
            validation=validation,
            folder=Path(folder),
            n_shares=processes,
        )
        xla_prepare = clock.lap()
        compiling, xla_compile = probe.compile(), clock.lap()
        # The first step also pays for the first use of memory.
        first, begun = probe.step(), time.perf_counter()
        seconds: list[float] = []
        while len(seconds) < _MOST_STEPS and time.perf_counter() - begun < budget - first:
            seconds.append(probe.step())
        clock.lap()
        evaluate_first, xla_evaluate = probe.evaluate(), clock.lap()
        probe.step()
        evaluate = probe.evaluate()
        return _Measured(
            probe.prepare_seconds,
            compiling,
            statistics.median(seconds or [first]),
            evaluate_first,
            evaluate,
            probe.trust(),
            probe.save(),
            float(probe.planned_bytes),
            xla_prepare,
            xla_compile,
            xla_evaluate,
            float(probe.exchanged),
        )


def _following(kind: MPO, steps: int, law: _Measured, how: str) -> list[Stage]:
    """What the trust region of operators takes: it is measured in any metric, and left in one."""
    checks = trust_checks(steps, kind.check_every)
    if not checks:
        return []
    stages = [_stage("trust region", f"{kind.samples} samples", checks, law.trust, how)]
    if kind.metric != "uniform":
        more = min(FURTHER_COMPRESSIONS, checks)
        words = f"{more} more, each as the first"
        stages.append(_stage("compressions", words, more, law.prepare, "assumed"))
    return stages


def _decoding(config: Config, problem: Problem, clock: CompileClock) -> Stage:
    """Sampling and the beam search as they are; scoring in proportion to the examples."""
    circuit, splits, settings = problem.circuit, problem.splits, config.decode
    params = _params(config, problem)
    parts = (splits.train, splits.validation, splits.test)[:: 1 if splits.held_out else 2]
    total = sum(map(len, parts))
    seconds, scored, compiled = [], [], []
    clock.lap()
    for size in (_SCORED[0], *_SCORED):
        small = map_splits(splits, functools.partial(_first, n=size))
        begun = time.perf_counter()
        decode(
            circuit,
            params,
            problem.network,
            problem.loss,
            small,
            jax.random.key(0),
            samples=settings.samples,
            beam=settings.beam,
            state=born_state(config, circuit, params),
        )
        seconds.append(time.perf_counter() - begun)
        compiled.append(clock.lap())
        scored.append(sum(min(size, len(part)) for part in parts))
    compiling = seconds[0] - seconds[1]
    each = seconds[1]
    if scored[2] > scored[1]:
        each = extrapolate(scored[1:], seconds[1:], total)
    words = f"{settings.samples + 2} networks, {total} examples"
    # The first alone contains what is compiled; the last one's other shape is not in `each`.
    xla = min(compiled[0], max(0.0, compiling))
    return _stage("decoding", words, 1, max(0.0, compiling) + each, "extrapolated", xla)


def _diagnosing(
    config: Config, problem: Problem, hamiltonian: LossHamiltonian, clock: CompileClock
) -> Stage:
    """Entropies and the errors of truncation, as they are."""
    n_examples, begun = config.energy.check_examples, time.perf_counter()
    params = _params(config, problem)
    clock.lap()
    diagnose(hamiltonian, problem.circuit, params, n_examples=n_examples, seed=config.train.seed)
    seconds = time.perf_counter() - begun
    return _stage("diagnostics", f"{n_examples} examples", 1, seconds, "measured", clock.lap())


def _first(data: Dataset, n: int) -> Dataset:
    return data.take(np.arange(min(n, len(data))))


def _final(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    sizes: Sizes,
    law: _Measured,
    budget: float,
    processes: int,
    clock: CompileClock,
) -> list[Stage]:
    """The energy of the end, whose batches the processes share out."""
    n = min(config.decode.final_examples or hamiltonian.n_examples, hamiltonian.n_examples)
    circuit: Any = problem.circuit
    params = _params(config, problem)
    if config.energy.kind != "statevector" and why_not_exact(hamiltonian, circuit) is not None:
        n_samples = config.decode.energy_samples
        wanted = measured_sizes(n, 2.0 * n * n_samples * sizes.n_qubits, budget)
        seconds, compiled = [], []
        clock.lap()
        for m in wanted:
            begun = time.perf_counter()
            small = hamiltonian.subset(np.arange(m)) if m < hamiltonian.n_examples else hamiltonian
            sampled_energy(small, circuit, params, jax.random.key(0), n_samples)
            seconds.append(time.perf_counter() - begun)
            compiled.append(clock.lap())
        how = "measured" if len(wanted) == 1 else f"extrapolated from {wanted[0]} and {wanted[1]}"
        words = f"{n} examples, {n_samples} samples"
        each, xla = (extrapolate(wanted, column, n) for column in (seconds, compiled))
        return [_stage("final energy", words, 1, each, how, xla)]
    if config.energy.kind == "statevector":
        seconds_all = law.prepare + law.compile + law.step
        words = f"{n} examples"
        return [_stage("final energy", words, 1, seconds_all, "as one step", law.xla_compile)]
    graph = isinstance(circuit, Graph)
    # Batches of this size in every process, as `exact_energy` makes them.
    each = _batch(config, hamiltonian.n_examples) if graph else _FINAL_BATCH
    whole = min(each * processes, n)
    size = -(-whole // processes)
    kind = configured_contraction(config) if graph else Exact()
    sizes = dataclasses.replace(
        sizes, batch=size, contraction_flops=sizes.contraction_flops * size / sizes.batch
    )
    flops = step_flops("contraction" if graph else "exact", sizes)
    wanted = measured_sizes(size, flops, budget)
    found = [_final_batch(kind, hamiltonian, circuit, params, m, clock) for m in wanted]
    first, again, xla = (extrapolate(wanted, column, size) for column in zip(*found, strict=True))
    how = "measured" if len(wanted) == 1 else f"extrapolated from {wanted[0]} and {wanted[1]}"
    words, batches = f"{size} examples each", -(-n // whole)
    return [
        _stage("final, compile", words, 1, max(0.0, first - again), how, xla),
        _stage("final energy", words, batches, again, how),
    ]


def _final_batch(
    kind: EnergyKind,
    hamiltonian: LossHamiltonian,
    circuit: Any,
    params: jax.Array,
    size: int,
    clock: CompileClock,
) -> tuple[float, float, float]:
    """Seconds of the first batch, preparation included, of another, and of XLA's compiling."""
    clock.lap()
    begun = time.perf_counter()
    prepared = kind.prepare(hamiltonian, circuit, batch_size=size, dtype=np.dtype(params.dtype))
    function, seconds = prepared.value_function(), []
    for _ in range(2):
        np.asarray(function(params, prepared.batch(np.arange(size))))
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return seconds[0], seconds[1], clock.lap()


def _stage(
    name: str, inputs: str, count: int, seconds_each: float, how: str, compiled: float = 0.0
) -> Stage:
    return Stage(name, inputs, count, seconds_each, float(_peak_bytes()), how, compiled)


def _peak_bytes() -> int:
    """The high-water mark of this process's memory."""
    import resource  # not there on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _process_seconds() -> float:
    """Since this process began; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))

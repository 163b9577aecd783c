"""The training loop: minibatch energies, an optax update, evaluations, checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Integer, UInt8

from .._shards import Shards, content_of
from .._threads import one_lapack_thread
from .._types import Angles, AnyArray
from .._versions import changed_versions, source_digest, versions
from ..circuit import Ansatz, Brickwork, Chain, FreeMPS, Graph, Noisy
from ..data import Dataset
from ..energy import (
    MPO,
    Batch,
    CompleteEnergy,
    Contraction,
    EnergyKind,
    MPOEnergy,
    PreparedEnergy,
    Sampled,
    Statevector,
)
from ..hamiltonian import LossHamiltonian, MeasuredError
from ..state import Born, born, most_likely, prepare_state
from .check import EnergyCheck, MPOCheck, PenaltyCheck, needs_check
from .checkpoint import load_latest_checkpoint, save_checkpoint
from .history import History
from .interrupt import StopSignals
from .lbfgs import LBFGS
from .objective import CHECK, KLPenalty, Objective, step_key
from .progress import Progress, ProgressDisplay
from .shards import EnergyShare, ShardedEnergy, agree_to_stop, note_signal

CHECKPOINTS = "checkpoints"
OPERATORS = "mpo.npz"
#: Width of the search for the likeliest network at an evaluation.
_BEAM = 4
#: Seconds between two lines that say how far a compression is.
_COMPRESSION_SECONDS = 10.0


class _StoppedError(Exception):
    """A stop signal came while the loss was compressed."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """What training ends with.

    **Attributes:**

    - `params`: the circuit's angles after `step` updates.
    - `status`: `"finished"`, `"interrupted"` (a signal; the run can be resumed) or
      `"non-finite"` (see `message`).
    - `message`: what happened and what to do about it, empty when finished.
    - `history`: energies, gradient norms and evaluations.
    - `best_bits`: the likeliest network of the evaluation with the lowest loss on `validation`,
      or None before the first evaluation.
    - `best_accuracy`: that network's accuracy on `validation`; NaN without any.
    - `seconds`, `compile_seconds`: wall time in the loop, resumed parts included, and what this
      process spent of it on compiling the step (evaluations compile at their first use).
    """

    params: Angles
    status: str
    message: str
    step: int
    history: History
    best_bits: UInt8[np.ndarray, " n_qubits"] | None
    best_accuracy: float
    seconds: float
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train and how often to look.

    **Arguments:** `steps` updates of `batch_size` examples each, 0 being all of them; an
    evaluation and a checkpoint every so many steps; `check_examples` for measuring the energy's
    error.
    """

    steps: int = 1500
    batch_size: int = 100
    evaluate_every: int = 250
    checkpoint_every: int = 250
    check_examples: int = 100

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "batch_size":
                if value < 0:
                    raise ValueError(
                        f"batch_size must be at least 0, got {value}; 0 is all the examples"
                    )
            elif value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")


@one_lapack_thread()
def train(
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    *,
    energy: EnergyKind,
    optimiser: optax.GradientTransformation | LBFGS,
    penalty: KLPenalty | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    params: Angles | None = None,
    validation: Dataset | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
) -> TrainResult:
    """Minimise the energy of `hamiltonian`, or energy and penalty, over the ansatz's parameters.

    The order of the examples and all random draws are functions of `seed` and the step alone, and
    everything else that the next step needs is in the checkpoint, so that a resumed run continues
    bit for bit.

    **Arguments:**

    - `energy`: a strategy, see [`hypercircuit.choose_energy`][]. The error of any but `Exact()` is
      measured at every evaluation on a fixed subset of the examples: the difference from the exact
      energy where there is one, and the standard error where networks are sampled.
    - `penalty`: an addition to the energy, weighted by its beta; the history's energy is without
      it. Every step records its divergence `kl` (from that step's samples) and `beta`; the
      evaluations have the divergence from samples of their own, with its standard error.
    - `optimiser`: any optax transformation; or `LBFGS()`, for energies of all the examples that
      are no estimates: a step is then one evaluation of its line search.
    - `schedule`: lengths and intervals; defaults to `Schedule()`.
    - `params`: start angles; left out, `circuit.init` with the seed. Their dtype is the precision.
    - `validation`: examples for loss and accuracy of the likeliest network at every evaluation,
      recorded as `validation_loss` and `validation_accuracy`. The very data set of `hamiltonian`
      holds nothing out: they are recorded as `train_loss` and `train_accuracy` then.
    - `folder`: where checkpoints go, and where training resumes from if it holds one. SIGINT,
      SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP then save and end with status `"interrupted"`.
    - `mesh`: of `device_mesh()`, to share the examples of a batch out over devices, with the same
      results up to rounding; left out, one device. Where the devices belong to several processes,
      all of them call this with the same arguments: process 0 alone writes checkpoints, into a
      folder that all of them see, and a signal to any process stops all after the same step.

    An energy of compressed operators (`MPO`) is measured on samples every few steps, and compressed
    anew where the state has left the region in which it is good; in the uniform metric that is said
    and recorded only.

    **Warns:** `RuntimeWarning` if the checkpoint was made with other code, other versions of the
    packages or on another kind of device: the run goes on, but not bit for bit.

    **Raises:** `ValueError` if a checkpoint belongs to another problem, the penalty's prior to
    another number of qubits, L-BFGS is given an energy that is an estimate, a graph another
    energy than `Contraction()`, or several devices an energy without minibatches; and if processes
    start or resume from different states.
    """
    schedule = schedule or Schedule()
    if isinstance(circuit, Graph) and not isinstance(energy, Contraction):
        raise ValueError(
            f"a {circuit.describe()} is trained with Contraction(), got {energy.name}; that energy "
            "takes chains (Brickwork) only"
        )
    if params is None:
        params = circuit.init(jax.random.key(seed), hamiltonian.n_qubits)
    loop = _Loop(
        hamiltonian, circuit, energy, penalty, optimiser, schedule, seed, params, validation, mesh
    )
    return loop.run(None if folder is None else Path(folder), progress or Progress())


def example_order(n_examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The rows of batch number `step`: every example once an epoch, in an order of its own.

    An epoch's incomplete last batch is dropped, so that all batches weigh the same.
    """
    batch_size = min(batch_size, n_examples)
    per_epoch = n_examples // batch_size
    epoch, batch = divmod(step, per_epoch)
    order = _epoch_order(n_examples, seed, epoch)
    return order[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _epoch_order(n_examples: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(n_examples)
    order.setflags(write=False)
    return order


class _State(eqx.Module):
    """All that the next step depends on, besides its number."""

    params: Float[Array, "depth n_qubits kinds"]
    optimiser: Any
    best_bits: UInt8[Array, " n_qubits"]
    best_loss: Float[Array, ""]
    best_accuracy: Float[Array, ""]

    @property
    def evaluated(self) -> bool:
        """Whether there is a best network."""
        return bool(jnp.isfinite(self.best_loss))


class _Made(NamedTuple):
    """What an update found: energy, penalty and gradient norm before it, and if all is finite.

    `signal` is the number of a stop signal that had reached any process before it, or 0.
    """

    energy: Float[Array, ""]
    penalty: dict[str, Float[Array, ""]]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    signal: Integer[Array, ""] | None = None


class _Run:
    """How far a run has come, and its checkpoints."""

    def __init__(
        self,
        start: _State,
        identity: dict[str, Any],
        folder: Path | None,
        shards: Shards | None = None,
    ) -> None:
        self.shards = shards
        self.folder = None if folder is None else folder / CHECKPOINTS
        self.identity = identity
        #: What the bits of a run depend on besides its identity.
        self.versions = versions() | {"source": source_digest()}
        #: What the operators in use are compressed around, where there are any.
        self.metric: np.ndarray | None = None
        self.n_compressions = 0
        self.fresh_error = 0.0
        #: The largest error of the operators that was measured since the last evaluation.
        self.worst_error = 0.0
        self.operators = None if folder is None else folder / OPERATORS
        self.resumed = False
        self.state, self.step, self.history, self._before = self._restore(start)
        if shards is not None:
            shards.check_same(
                f"the state at step {self.step} from which training goes on",
                repr((self.step, identity)).encode() + content_of(self.state),
                "start all processes with the same settings, and with a run folder on a file "
                "system that all of them see",
            )
            self.state = shards.replicate(self.state)
        self._saved = self.step
        self._begun = time.perf_counter()

    def _restore(self, start: _State) -> tuple[_State, int, History, float]:
        found = None if self.folder is None else load_latest_checkpoint(self.folder, start)
        if found is None:
            return start, 0, History(), 0.0
        state, metadata = found
        for name, value in self.identity.items():
            if metadata["identity"].get(name) != value:
                if name == "data":
                    raise ValueError(
                        f"the data have changed since the checkpoint in {self.folder} was made "
                        f"(fingerprint {value[:12]}, there {metadata['identity'].get(name)[:12]}); "
                        "resume with the same data file or choose an empty folder"
                    )
                raise ValueError(
                    f"the checkpoint in {self.folder} was made with {name}="
                    f"{metadata['identity'].get(name)}, this run has {name}={value}; "
                    "resume with the same settings or choose an empty folder"
                )
        changed = changed_versions(metadata.get("versions", {}), self.versions)
        if changed:
            warnings.warn(
                f"the checkpoint of step {metadata['step']} in {self.folder} was made with other "
                f"code or another device: {', '.join(changed)}; the run goes on, but it may differ "
                "from an undisturbed one. For the same bits resume with what made it",
                RuntimeWarning,
                stacklevel=2,
            )
        self.metric, self.resumed = metadata.get("metric"), True
        self.n_compressions = metadata.get("n_compressions", 0)
        self.fresh_error = metadata.get("fresh_error", 0.0)
        self.worst_error = metadata.get("worst_error", 0.0)
        history = History.from_arrays(metadata["history"])
        return state, metadata["step"], history, metadata["seconds"]

    @property
    def local(self) -> _State:
        """The state as arrays of this process alone."""
        return self.state if self.shards is None else self.shards.local(self.state)

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begun

    def save(self) -> None:
        """Write a checkpoint unless the last one is of this step."""
        if self.folder is None or self._saved == self.step:
            return
        if self.shards is not None and not self.shards.first:
            return
        metadata = {
            "identity": self.identity,
            "versions": self.versions,
            "history": self.history.to_arrays(),
            "seconds": self.seconds,
            "metric": self.metric,
            "n_compressions": self.n_compressions,
            "fresh_error": self.fresh_error,
            "worst_error": self.worst_error,
        }
        save_checkpoint(self.folder, self.step, self.local, metadata)
        self._saved = self.step

    def record(
        self, state: _State, energy: float, gradient_norm: float, more: dict[str, float]
    ) -> None:
        """Go on to the state that an update made."""
        self.state, self.step = state, self.step + 1
        self.history.record_step(
            self.step,
            energy=energy,
            gradient_norm=gradient_norm,
            seconds=self.seconds,
            more=more,
        )

    def result(self, status: str, message: str, compile_seconds: float) -> TrainResult:
        state = self.local
        return TrainResult(
            state.params,
            status,
            message,
            self.step,
            self.history,
            np.asarray(state.best_bits) if state.evaluated else None,
            float(state.best_accuracy),
            self.seconds,
            compile_seconds,
        )


class _Loop:
    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        energy: EnergyKind,
        penalty: KLPenalty | None,
        optimiser: optax.GradientTransformation | LBFGS,
        schedule: Schedule,
        seed: int,
        params: Angles,
        validation: Dataset | None,
        mesh: Mesh | None = None,
        n_shares: int = 1,
    ) -> None:
        self.shards = None if mesh is None else Shards(mesh)
        self.hamiltonian, self.circuit, self.schedule = hamiltonian, circuit, schedule
        self.optimiser, self.seed, self.validation = optimiser, seed, validation
        # What the likeliest network's scores are called in records, and in the display.
        held_out = validation is not hamiltonian.data
        self.part, self.shown = ("validation", "val") if held_out else ("train", "train")
        dtype = np.dtype(params.dtype)
        n_examples = hamiltonian.n_examples
        self.batch_size = min(schedule.batch_size or n_examples, n_examples)
        # An energy of chains has refused a graph before it gets to the rest.
        chain: Any = circuit
        self._likely: Callable[[Angles], tuple[Any, Any]] = functools.partial(_likeliest, chain)
        if isinstance(energy, Contraction):
            self._likely = functools.partial(_likeliest_of_graph, circuit, energy)
            if validation is not None:
                _born(circuit, energy, params).check(_BEAM)
        prepare = functools.partial(energy.prepare, hamiltonian, chain, dtype=dtype)
        self.energy: PreparedEnergy
        if (self.shards or n_shares > 1) and isinstance(energy, (Statevector, MPO)):
            n_devices = n_shares if self.shards is None else len(self.shards)
            raise ValueError(
                f"energy {energy.name} is one of all the examples at once, of which "
                f"{n_devices} devices have nothing to share out; train with one process and "
                "without a mesh, or take another energy"
            )
        if self.shards is not None:
            self.energy = ShardedEnergy(
                lambda size: prepare(batch_size=size), self.batch_size, self.shards
            )
        else:
            self.energy = prepare(batch_size=self.batch_size)
            if n_shares > 1:
                self.energy = EnergyShare(self.energy, n_shares)
        self.objective = Objective(self.energy, penalty, seed)
        self.start = _State(
            params,
            optimiser.init(params),
            jnp.zeros(hamiltonian.n_qubits, jnp.uint8),
            jnp.asarray(jnp.inf, dtype),
            jnp.asarray(jnp.nan, dtype),
        )
        self.identity = {
            "energy": energy.name,
            "samples": repr(energy) if isinstance(energy, Sampled) else None,
            "operators": repr(energy) if isinstance(energy, MPO) else None,
            "optimiser": repr(optimiser) if isinstance(optimiser, LBFGS) else None,
            "penalty": None if penalty is None else penalty.describe(),
            "seed": seed,
            "data": hamiltonian.data.fingerprint,
            "batch_size": self.batch_size,
            "depth": None if isinstance(circuit, FreeMPS) else circuit.depth,
            "rotations": None if isinstance(circuit, FreeMPS) else circuit.rotations,
            "loss": hamiltonian.loss.name,
            "network": repr(hamiltonian.network),
        }
        if isinstance(circuit, Graph):
            self.identity["graph"] = repr(circuit)
        if isinstance(circuit, Noisy):
            self.identity["noise"] = repr(circuit.noise)
        elif not isinstance(circuit, (Graph, Brickwork)):
            self.identity["state"] = repr(circuit)
        if isinstance(optimiser, LBFGS) and (
            self.batch_size < n_examples or isinstance(energy, Sampled) or penalty is not None
        ):
            raise ValueError(
                "L-BFGS needs an energy that is no estimate, got batches of "
                f"{self.batch_size} of {n_examples} examples, energy {energy.name} and "
                f"{'a' if penalty is not None else 'no'} penalty; set train.batch_size=0, or take "
                "another optimiser"
            )
        self._energy_name = "energy of the operators" if isinstance(energy, MPO) else "energy"
        #: Whether it was said that the operators exceed their share of the loss.
        self._distrusted = False
        self.checks: list[EnergyCheck | MPOCheck | PenaltyCheck] = []
        if isinstance(self.energy, MPOEnergy):
            self.checks.append(MPOCheck(self.energy, seed))
        elif needs_check(energy, hamiltonian):
            n_check = schedule.check_examples
            self.checks.append(
                EnergyCheck(hamiltonian, chain, energy, n_examples=n_check, seed=seed, dtype=dtype)
            )
        if penalty is not None:
            self.checks.append(PenaltyCheck(chain, penalty, seed))

    def _update(
        self, state: _State, batch: Batch, step: Integer[AnyArray, ""]
    ) -> tuple[_State, _Made]:
        """The state after update number `step`, counted from 0."""
        if isinstance(self.optimiser, LBFGS):
            return self._search(self.optimiser, state, batch, step)
        descend = jax.value_and_grad(self.objective, has_aux=True)
        (value, parts), gradient = descend(state.params, batch, step)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        state = dataclasses.replace(state, params=params, optimiser=optimiser)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(params).all()
        return state, _Made(parts.energy, parts.penalty, norm, finite)

    def _search(
        self, optimiser: LBFGS, state: _State, batch: Batch, step: Integer[AnyArray, ""]
    ) -> tuple[_State, _Made]:
        """The same for one evaluation of a line search, which starts afresh if it gives up."""
        search, _, given_up = optimiser.step(
            state.optimiser, lambda params: self.objective(params, batch, step)[0]
        )
        norm = optax.tree.norm(search.gradient)
        finite = jnp.isfinite(search.value) & jnp.isfinite(norm)
        afresh = optimiser.init(search.params)
        following = jax.tree.map(lambda a, b: jnp.where(given_up, a, b), afresh, search)
        state = dataclasses.replace(state, params=search.params, optimiser=following)
        return state, _Made(search.value, {}, norm, finite)

    def _shared_update(
        self,
        state: _State,
        batch: Batch,
        step: Integer[AnyArray, ""],
        signals: Integer[AnyArray, " devices"],
    ) -> tuple[_State, _Made]:
        """The same on several devices, which agree about stop signals on the way."""
        state, made = self._update(state, batch, step)
        return state, made._replace(signal=signals.max())

    def _compile(self, run: _Run) -> jax.stages.Compiled:
        if self.shards is None:
            return jax.jit(self._update).lower(*self._inputs(run)).compile()
        update = jax.jit(self._shared_update, out_shardings=self.shards.replicated)
        return update.lower(*self._inputs(run), self._signals(self.shards, None)).compile()

    def _call(
        self, compiled: jax.stages.Compiled, run: _Run, stop: StopSignals
    ) -> tuple[_State, _Made]:
        if self.shards is None:
            return compiled(*self._inputs(run))
        return compiled(*self._inputs(run), self._signals(self.shards, stop.requested))

    @staticmethod
    def _signals(shards: Shards, requested: str | None) -> jax.Array:
        number = signal.Signals[requested].value if requested else 0
        return shards.stack([np.int32(number)] * len(shards.own))

    @staticmethod
    def _asked(stop: StopSignals, made: _Made) -> bool:
        """Whether to stop after an update: several processes do at a signal that all know of."""
        if made.signal is None:
            return stop.requested is not None
        number = int(made.signal)
        note_signal(stop, number)
        return number != 0

    def _inputs(self, run: _Run) -> tuple[_State, Batch, np.ndarray]:
        """What the next update takes."""
        step = np.asarray(run.step, np.int32)
        if isinstance(self.energy, CompleteEnergy):
            return run.state, self.energy.whole(), step
        rows = example_order(self.hamiltonian.n_examples, self.batch_size, self.seed, run.step)
        return run.state, self.energy.batch(rows), step

    def run(self, folder: Path | None, progress: Progress) -> TrainResult:
        run = _Run(self.start, self.identity, folder, self.shards)
        compile_seconds, status, message = 0.0, "finished", ""
        with (
            StopSignals() as stop,
            progress.start(
                self.schedule.steps, initial=run.step, energy=self._energy_name
            ) as display,
        ):
            try:
                if isinstance(self.energy, MPOEnergy) and run.step < self.schedule.steps:
                    self._begin(self.energy, run, display, stop)
                begun = time.perf_counter()
                compiled = None
                if run.step < self.schedule.steps:
                    compiled = self._compile(run)
                compile_seconds = time.perf_counter() - begun
                status, message = self._descend(run, compiled, display, stop)
            except _StoppedError:
                status, message = "interrupted", _stopped(stop, run)
            run.save()
        return run.result(status, message, compile_seconds)

    def _descend(
        self,
        run: _Run,
        compiled: jax.stages.Compiled | None,
        display: ProgressDisplay,
        stop: StopSignals,
    ) -> tuple[str, str]:
        """All the steps that are left; returns status and message."""
        schedule = self.schedule
        if self.validation is not None and run.state.evaluated:
            display.evaluated(float(run.state.best_accuracy), on=self.shown)
        while compiled is not None and run.step < schedule.steps:
            if isinstance(self.energy, MPOEnergy):
                self._follow(self.energy, run, display, stop)
            following, made = self._call(compiled, run, stop)
            energy, norm = float(made.energy), float(made.gradient_norm)
            if not made.finite:
                return "non-finite", _non_finite(run.step + 1, energy, norm)
            more = {name: float(value) for name, value in made.penalty.items()}
            run.record(following, energy, norm, more)
            display.update(run.step, energy=energy, gradient_norm=norm)
            if run.step % schedule.evaluate_every == 0 or run.step == schedule.steps:
                self._evaluate(run, display)
            if run.step % schedule.checkpoint_every == 0:
                run.save()
            if self._asked(stop, made):
                return "interrupted", _stopped(stop, run)
        # On several devices a signal after the last update is known to its own process only.
        if self.shards is not None and agree_to_stop(stop, self.shards):
            return "interrupted", _stopped(stop, run)
        return "finished", ""

    def _begin(
        self, energy: MPOEnergy, run: _Run, display: ProgressDisplay, stop: StopSignals
    ) -> None:
        """The operators of the first step, or those that a resumed run had."""
        if not run.resumed:
            self._compress(energy, energy.metric(run.state.params), run, display, stop)
            return
        energy.compress(run.metric, self._sites(display, stop), path=run.operators)
        energy.n_compressions, energy.fresh_error = run.n_compressions, run.fresh_error

    def _follow(
        self, energy: MPOEnergy, run: _Run, display: ProgressDisplay, stop: StopSignals
    ) -> None:
        """Before some steps: see whether the operators are still good where the state is."""
        kind = energy.kind
        if run.step == 0 or run.step % kind.check_every:
            return
        found = energy.measure(run.state.params, step_key(self.seed, CHECK, run.step))
        run.worst_error = max(run.worst_error, found.rms)
        if found.rms <= energy.limit(found):
            return
        if kind.metric == "uniform":
            if not self._distrusted:
                display.write(_distrust(kind, found, f"at step {run.step}"))
            self._distrusted = True
            return
        self._compress(energy, energy.metric(run.state.params), run, display, stop)
        if isinstance(self.optimiser, LBFGS):
            # What it knows is of another function.
            search = self.optimiser.init(run.state.params)
            run.state = dataclasses.replace(run.state, optimiser=search)

    def _compress(
        self,
        energy: MPOEnergy,
        metric: np.ndarray | None,
        run: _Run,
        display: ProgressDisplay,
        stop: StopSignals,
    ) -> None:
        """Compress the loss, and measure how good that is at best."""
        energy.compress(metric, self._sites(display, stop), path=run.operators)
        assert energy.compressed is not None
        display.write(f"compressed the loss at step {run.step}: {energy.compressed.describe()}")
        found = energy.measure(run.state.params, step_key(self.seed, CHECK, run.step))
        energy.fresh_error = found.rms
        if found.rms > energy.kind.trust * abs(found.loss):
            display.write(_distrust(energy.kind, found, "at once"))
            self._distrusted = True
        run.metric, run.n_compressions = metric, energy.n_compressions
        run.fresh_error = energy.fresh_error

    @staticmethod
    def _sites(display: ProgressDisplay, stop: StopSignals) -> Callable[[int, int], None]:
        """Shows how far a compression is, and ends it at a stop signal."""
        shown = time.monotonic()

        def sites(done: int, total: int) -> None:
            nonlocal shown
            if stop.requested is not None:
                raise _StoppedError
            if time.monotonic() - shown > _COMPRESSION_SECONDS:
                shown = time.monotonic()
                display.write(f"compressing the loss: {done} of {total} sites")

        return sites

    def _evaluate(self, run: _Run, display: ProgressDisplay) -> None:
        """Measure the errors, and the likeliest network on `validation`."""
        row: dict[str, float] = {}
        state = run.local
        for check in self.checks:
            row |= check.measure(state.params, run.step)
        if isinstance(self.energy, MPOEnergy):
            row["mpo_rms_worst"] = max(row["mpo_rms"], run.worst_error)
            run.worst_error = 0.0
        if self.validation is not None:
            better, found = self._validate(state, self.validation)
            if better is not state:
                run.state = better if self.shards is None else self.shards.replicate(better)
            row |= found
            display.evaluated(found[f"{self.part}_accuracy"], on=self.shown)
        run.history.record_evaluation(run.step, row)

    def _validate(self, state: _State, validation: Dataset) -> tuple[_State, dict[str, float]]:
        bits, _ = self._likely(state.params)
        network, loss = self.hamiltonian.network, self.hamiltonian.loss
        x = validation.x.astype(np.float32, copy=False)
        logits = network.logits(np.asarray(bits[:1]), x, step=validation.step)[0]
        value = float(loss.value(logits, validation.y).mean())
        accuracy = float((loss.predict(logits) == validation.y).mean())
        if value < float(state.best_loss):
            dtype = state.params.dtype
            state = dataclasses.replace(
                state,
                best_bits=jnp.asarray(bits[0]),
                best_loss=jnp.asarray(value, dtype),
                best_accuracy=jnp.asarray(accuracy, dtype),
            )
        return state, {f"{self.part}_loss": value, f"{self.part}_accuracy": accuracy}


def _distrust(kind: MPO, found: MeasuredError, when: str) -> str:
    """What is said of operators whose error exceeds the share of their loss, and the remedies."""
    adapted = "" if kind.metric == "state" else "take mpo.metric='state', "
    return (
        f"the operators' error on samples of the state, {found.rms:.2g}, is more than "
        f"mpo.trust={kind.trust:g} of their loss, {found.loss:.2g}, {when}; for less {adapted}"
        f"raise mpo.max_bond={kind.max_bond} or lower loss.tolerance"
    )


def _stopped(stop: StopSignals, run: _Run) -> str:
    return f"stopped by {stop.requested} after step {run.step}"


def _non_finite(step: int, energy: float, gradient_norm: float) -> str:
    """What happened at a step that was not made, and the remedy."""
    what = f"the energy was {energy} and its gradient norm {gradient_norm}"
    if math.isfinite(energy) and math.isfinite(gradient_norm):
        what = "the update made the angles non-finite"
    return (
        f"{what} at step {step}; the angles before that step are kept. In a new folder, lower "
        "optimiser.learning_rate, set optimiser.clip_norm, or use train.precision='float64'"
    )


@eqx.filter_jit
def _likeliest(circuit: Chain, params: Angles) -> tuple[jax.Array, jax.Array]:
    return most_likely(prepare_state(circuit, params), _BEAM)


def _born(circuit: Ansatz, energy: Contraction, params: Angles) -> Born:
    return born(circuit, params, budget=energy.budget, search=energy.search)


def _likeliest_of_graph(
    circuit: Ansatz, energy: Contraction, params: Angles
) -> tuple[np.ndarray, np.ndarray]:
    """Not compiled as a whole: what is compiled is kept by the circuit's contractions."""
    bits, logs = _born(circuit, energy, params).most_likely(_BEAM)
    return np.asarray(bits), np.asarray(logs)

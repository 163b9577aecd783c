"""Many restarts of one small problem, trained together in one vmapped program.

`batch` places are trained side by side. A place holds one restart until that restart ends; the
host looks in every few iterations, writes down the restarts that ended and puts the next ones in
their places, so that a slow restart does not hold up the others:

    place 0   | restart 0 ..... | restart 3 .. | restart 5 ...
    place 1   | restart 1 .. | restart 2 ........... | restart 4
              look         look         look         look

Restart i starts from the angles of `fold_in(key(seed), i)`, whatever the number of restarts and
their batches. Those change its later path only through rounding, which hundreds of iterations of
an unfinished descent amplify: shares over restarts can be compared, single ends cannot.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._files import write_atomically
from .._precision import check_precision
from .._shards import Shards, content_of
from .._types import Angles, AnyArray
from ..circuit import ExactChain, Noisy
from ..energy import Batch, EnergyKind, PreparedEnergy, Sampled, Statevector
from ..hamiltonian import LossHamiltonian
from .interrupt import StopSignals
from .lbfgs import LBFGS
from .progress import Progress
from .shards import agree_to_stop

#: What can become of a restart, in the order of the codes of `RestartResult.status`.
STATUSES = ("converged", "max-iterations", "stalled", "non-finite", "not-run")
_RUNNING = -1
_CONVERGED, _MAX_ITERATIONS, _STALLED, _NON_FINITE, _NOT_RUN = range(5)
_FILE = "restarts.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class RestartResult:
    """What each restart ended with.

    **Attributes:**

    - `params`: the angles of the last finite point.
    - `energies`, `gradient_norms`: at those angles; the norm is Euclidean over all angles.
    - `iterations`: updates made.
    - `status`: for each restart `"converged"` (the gradient norm fell to the rule's),
      `"max-iterations"`, `"stalled"` (no step along the direction descends: rounding
      allows no more), `"non-finite"` (its last finite point is kept), or `"not-run"` where a signal
      ended the job first.
    - `seconds`: wall time, resumed parts included.
    - `message`: what happened and what to do about it, empty when all restarts ended.
    """

    params: Float[np.ndarray, "n_restarts depth n_qubits kinds"]
    energies: Float[np.ndarray, " n_restarts"]
    gradient_norms: Float[np.ndarray, " n_restarts"]
    iterations: Int[np.ndarray, " n_restarts"]
    status: tuple[str, ...]
    seconds: float
    message: str

    @property
    def finished(self) -> bool:
        """Whether every restart was run to its end."""
        return "not-run" not in self.status


def restarts(
    hamiltonian: LossHamiltonian,
    circuit: ExactChain,
    *,
    energy: EnergyKind | None = None,
    optimiser: optax.GradientTransformation | None = None,
    n_restarts: int = 100,
    seed: int = 0,
    max_iterations: int = 500,
    gradient_norm: float = 1e-6,
    batch: int = 50,
    init: str = "uniform",
    dtype: np.dtype | type = np.float64,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
) -> RestartResult:
    """Minimise the energy of the complete data from many starts, the published protocol.

    **Arguments:**

    - `energy`: a strategy, all examples in one batch; defaults to `Statevector()`.
    - `optimiser`: any optax transformation, such as `optax.adam(0.05)`; left out, L-BFGS with
      optax's directions and a line search that suits a batch (see `train/lbfgs.py`).
    - `n_restarts`, `seed`: restart i is a function of the seed and i.
    - `max_iterations`, `gradient_norm`: a restart ends after so many updates, or once its
      gradient's Euclidean norm (loss unit per radian) is at most this.
    - `batch`: restarts trained side by side.
    - `init`: how `circuit.init` draws the angles; `"uniform"` is uniform on [0, 2 pi).
    - `dtype`: float64 (needs JAX's x64 mode) or float32, which seldom reaches a norm of 1e-6.
    - `folder`: where ended restarts are kept, and where the same call goes on from. SIGINT and
      SIGTERM then end it early.
    - `mesh`: of `device_mesh()`, to share the restarts side by side out over devices; of several
      processes all call this alike, and process 0 alone writes.

    **Raises:** `ValueError` for arguments out of range or a folder of other restarts.
    """
    for name, value in (("n_restarts", n_restarts), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if max_iterations < 0:
        raise ValueError(f"max_iterations must be at least 0, got {max_iterations}")
    if not gradient_norm >= 0:
        raise ValueError(
            f"gradient_norm must be at least 0, got {gradient_norm}; 0 runs all max_iterations"
        )
    dtype = check_precision(dtype)
    energy = energy or Statevector()
    if isinstance(energy, Sampled):
        raise ValueError(
            "restarts need an energy without randomness, got Sampled(); use Statevector(), "
            "Exact() or Cumulant(), or train() one seed at a time"
        )
    if optimiser is not None and folder is not None:
        raise ValueError(
            "folder cannot tell one given optimiser from another, so it goes with the default "
            "L-BFGS only; leave folder out, or optimiser"
        )
    prepared = energy.prepare(hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=dtype)
    rule = _Rule(max_iterations, gradient_norm, init, seed)
    shards = None if mesh is None else Shards(mesh)
    program = _Program(prepared, optimiser, rule, shards)
    identity = {
        "energy": energy.name,
        "optimiser": "lbfgs",
        "seed": seed,
        "init": init,
        "max_iterations": max_iterations,
        "gradient_norm": gradient_norm,
        "dtype": dtype.name,
        "depth": circuit.depth,
        "rotations": circuit.rotations,
        "data": hamiltonian.data.fingerprint,
        "loss": hamiltonian.loss.name,
        "network": repr(hamiltonian.network),
    }
    if isinstance(circuit, Noisy):
        identity["noise"] = repr(circuit.noise)
    shape = circuit.shape(hamiltonian.n_qubits)
    table = _Table(n_restarts, shape, dtype, None if folder is None else Path(folder), identity)
    places = min(batch, n_restarts)
    if shards is not None:
        places = -(-places // len(shards)) * len(shards)
        shards.check_same(
            "the restarts that have ended",
            repr(identity).encode() + content_of(table.columns),
            "start all processes with the same settings, and with a folder that all of them see",
        )
    return _run(program, table, places, progress or Progress())


@dataclasses.dataclass(frozen=True)
class _Rule:
    max_iterations: int
    gradient_norm: float
    init: str
    seed: int


class _Member(eqx.Module):
    """One restart on its way; stacked over places. Iteration -1: the start is not evaluated."""

    params: Float[Array, "*places depth n_qubits kinds"]
    value: Float[Array, "*places"]
    gradient: Float[Array, "*places depth n_qubits kinds"]
    method: Any
    iteration: Int[Array, "*places"]
    status: Int[Array, "*places"]


class _Program:
    """The pure functions of a restart, vmapped over places and compiled."""

    def __init__(
        self,
        energy: PreparedEnergy,
        optimiser: optax.GradientTransformation | None,
        rule: _Rule,
        shards: Shards | None,
    ) -> None:
        self.energy, self.rule, self.shards = energy, rule, shards
        self.optimiser = None if optimiser is None else optax.with_extra_args_support(optimiser)
        self.data = energy.batch(np.arange(energy.hamiltonian.n_examples))
        start, replace, advance = jax.vmap(self._start), self._replace, self._advance
        if shards is not None:
            # Every device goes its own way until the host looks.
            self.data = shards.replicate(self.data)
            start = shards.map(start, split=(True,))
            replace = shards.map(replace, split=(True, True, True))
            advance = shards.map(advance, split=(True, False, False))
        self.start = jax.jit(start)
        self.replace = jax.jit(replace)
        self.advance = jax.jit(advance)

    def places(self, values: np.ndarray) -> AnyArray:
        """One value per place, where the places are."""
        return values if self.shards is None else self.shards.scatter(values)

    def look(self, tree: PyTree) -> PyTree:
        """What the places hold, on the host."""
        if self.shards is not None:
            return self.shards.gather(tree)
        return jax.tree.map(np.asarray, tree)

    def _judge(self, member: _Member) -> _Member:
        """Set the status of a member that has met the stopping rule."""
        norm = optax.tree.norm(member.gradient)
        over = jnp.where(member.iteration >= self.rule.max_iterations, _MAX_ITERATIONS, _RUNNING)
        status = jnp.where(norm <= self.rule.gradient_norm, _CONVERGED, over)
        finite = jnp.isfinite(member.value) & jnp.isfinite(norm)
        status = jnp.where(finite, status, _NON_FINITE)
        return dataclasses.replace(member, status=status)

    def _start(self, index: jax.Array) -> _Member:
        circuit, n_qubits = self.energy.circuit, self.energy.hamiltonian.n_qubits
        key = jax.random.fold_in(jax.random.key(self.rule.seed), index)
        params = circuit.init(key, n_qubits, how=self.rule.init, dtype=self.energy.dtype)
        method = (self.optimiser or LBFGS()).init(params)
        infinite = jnp.asarray(jnp.inf, params.dtype)
        before, running = jnp.asarray(-1), jnp.asarray(_RUNNING)
        return _Member(params, infinite, jnp.zeros_like(params), method, before, running)

    def _step(self, member: _Member, data: Batch) -> _Member:
        """One evaluation; a member that has ended stays as it is."""
        ended = member.status != _RUNNING

        def value_fn(params: Angles) -> jax.Array:
            return self.energy(params, data)

        if self.optimiser is None:
            following, given_up = self._search(member, value_fn)
        else:
            following, given_up = self._update(member, value_fn, ended)
        following = self._judge(following)
        finite = jnp.isfinite(following.params).all() & (following.status != _NON_FINITE)
        stalled = finite & given_up & (following.status == _RUNNING)
        # A restart that has ended stays, and a non-finite one keeps the point before.
        stay = ended | ~finite
        left = dataclasses.replace(member, status=jnp.where(ended, member.status, _NON_FINITE))
        following = dataclasses.replace(
            following, status=jnp.where(stalled, _STALLED, following.status)
        )
        return jax.tree.map(lambda old, new: jnp.where(stay, old, new), left, following)

    def _search(
        self, member: _Member, value_fn: Callable[[Angles], jax.Array]
    ) -> tuple[_Member, jax.Array]:
        search, moved, given_up = LBFGS().step(member.method, value_fn)
        iteration = member.iteration + moved
        following = _Member(
            search.params, search.value, search.gradient, search, iteration, member.status
        )
        return following, given_up

    def _update(
        self, member: _Member, value_fn: Callable[[Angles], jax.Array], ended: jax.Array
    ) -> tuple[_Member, jax.Array]:
        # Without a gradient a line search has nothing to do: those that ended hold up nobody.
        gradient = jnp.where(ended, 0, member.gradient)
        assert self.optimiser is not None
        updates, state = self.optimiser.update(
            gradient,
            member.method,
            member.params,
            value=member.value,
            grad=gradient,
            value_fn=value_fn,
        )
        # The first step evaluates the start and moves nowhere.
        first = member.iteration < 0
        state = jax.tree.map(lambda a, b: jnp.where(first, a, b), member.method, state)
        params = jnp.where(first, member.params, optax.apply_updates(member.params, updates))
        value, gradient = jax.value_and_grad(value_fn)(params)
        following = _Member(params, value, gradient, state, member.iteration + 1, member.status)
        return following, (params == member.params).all() & ~first

    def _advance(self, members: _Member, data: Batch, n_steps: jax.Array) -> _Member:
        """Up to `n_steps` evaluations of every place, fewer once all have ended."""

        def go_on(carry: tuple[jax.Array, _Member]) -> jax.Array:
            done, members = carry
            return (done < n_steps) & (members.status == _RUNNING).any()

        def body(carry: tuple[jax.Array, _Member]) -> tuple[jax.Array, _Member]:
            done, members = carry
            return done + 1, jax.vmap(self._step, in_axes=(0, None))(members, data)

        return jax.lax.while_loop(go_on, body, (jnp.zeros((), int), members))[1]

    def _replace(
        self, members: _Member, indices: jax.Array, new: Bool[Array, " places"]
    ) -> _Member:
        """Start other restarts in the places where `new` holds."""
        started = jax.vmap(self._start)(indices)

        def choose(old: jax.Array, other: jax.Array) -> jax.Array:
            return jnp.where(new.reshape(-1, *[1] * (old.ndim - 1)), other, old)

        return jax.tree.map(choose, members, started)


class _Table:
    """The restarts that have ended, in memory and in the folder."""

    def __init__(
        self,
        n_restarts: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        folder: Path | None,
        identity: dict[str, Any],
    ) -> None:
        self.columns: dict[str, np.ndarray] = {
            "params": np.full((n_restarts, *shape), np.nan, dtype),
            "energies": np.full(n_restarts, np.nan, dtype),
            "gradient_norms": np.full(n_restarts, np.nan, dtype),
            "iterations": np.zeros(n_restarts, int),
            "status": np.full(n_restarts, _NOT_RUN),
        }
        self.folder, self.identity, self.before = folder, identity, 0.0
        self.begun = time.perf_counter()
        if folder is not None and (folder / _FILE).exists():
            self._load(folder / _FILE)

    def _load(self, file: Path) -> None:
        with np.load(file) as stored:
            for name, value in self.identity.items():
                if str(stored[f"identity.{name}"]) != str(value):
                    raise ValueError(
                        f"{file} holds restarts with {name}={stored[f'identity.{name}']}, this "
                        f"call has {name}={value}; use the same settings or an empty folder"
                    )
            kept = min(len(stored["status"]), len(self))
            for name, column in self.columns.items():
                column[:kept] = stored[name][:kept]
            self.before = float(stored["seconds"])

    def __len__(self) -> int:
        return len(self.columns["status"])

    @property
    def missing(self) -> list[int]:
        return np.flatnonzero(self.columns["status"] == _NOT_RUN).tolist()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.begun

    def record(self, found: dict[str, np.ndarray], places: np.ndarray, indices: np.ndarray) -> None:
        norms = np.sqrt(np.sum(found["gradient"] ** 2, axis=(1, 2, 3)))
        ends = (found["params"], found["value"], norms, found["iteration"], found["status"])
        for column, values in zip(self.columns.values(), ends, strict=True):
            column[indices[places]] = values[places]

    def save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = {f"identity.{name}": str(value) for name, value in self.identity.items()}
        arrays: dict[str, Any] = {**self.columns, **identity, "seconds": self.seconds}
        write_atomically(self.folder / _FILE, lambda file: np.savez(file, **arrays))

    def result(self, message: str) -> RestartResult:
        columns = self.columns
        return RestartResult(
            columns["params"],
            columns["energies"],
            columns["gradient_norms"],
            columns["iterations"],
            tuple(STATUSES[code] for code in columns["status"]),
            self.seconds,
            message,
        )


#: Evaluations between two looks of the host: few enough that ended places do not idle for long.
_STEPS = 20


def _run(program: _Program, table: _Table, batch: int, progress: Progress) -> RestartResult:
    waiting = table.missing
    n_done = len(table) - len(waiting)
    message = ""
    if not waiting:
        return table.result(message)
    indices = np.resize(waiting[:batch], batch)  # spare places repeat a restart and are ignored
    occupied = np.arange(batch) < len(waiting)
    waiting = waiting[batch:]
    data = program.data
    members = program.start(program.places(indices))
    shards = program.shards
    with StopSignals() as stop, progress.start(len(table), initial=n_done) as display:
        while True:
            members = program.advance(members, data, np.asarray(_STEPS))
            ended = occupied & (program.look(members.status) != _RUNNING)
            if ended.any():
                fields = ("params", "value", "gradient", "iteration", "status")
                found = program.look({name: getattr(members, name) for name in fields})
                table.record(found, ended, indices)
                if shards is None or shards.first:
                    table.save()
                n_done += int(ended.sum())
                energies = table.columns["energies"]
                display.update(n_done, energy=float(np.nanmin(np.append(energies, np.inf))))
                occupied &= ~ended
            if agree_to_stop(stop, shards):
                message = (
                    f"stopped by {stop.requested} after {n_done} of {len(table)} restarts; the "
                    "same call with the same folder goes on"
                )
                break
            new = np.zeros(batch, bool)
            for place in np.flatnonzero(ended)[: len(waiting)]:
                indices[place], new[place] = waiting.pop(0), True
            if new.any():
                occupied |= new
                members = program.replace(members, program.places(indices), program.places(new))
            elif not occupied.any():
                break
    return table.result(message)

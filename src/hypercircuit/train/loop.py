"""The training loop: minibatch energies, an optax update, evaluations, checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from .._types import Angles
from ..circuit import Brickwork
from ..data import Dataset
from ..energy import Batch, EnergyKind, Exact
from ..hamiltonian import LossHamiltonian, QuadraticTerms
from ..state import exact_mps, most_likely
from .checkpoint import load_latest_checkpoint, save_checkpoint
from .history import History
from .interrupt import StopSignals
from .progress import Progress

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """What training ends with.

    **Attributes:**

    - `params`: the circuit's angles after `step` updates.
    - `status`: `"finished"`, `"interrupted"` (a signal; the run can be resumed) or
      `"non-finite"` (see `message`).
    - `message`: what happened and what to do about it, empty when finished.
    - `history`: energies, gradient norms and evaluations.
    - `best_bits`: the likeliest network of the evaluation with the lowest validation loss, or
      None before the first evaluation.
    - `best_accuracy`: that network's accuracy on the validation examples; NaN without any.
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

    **Arguments:** `steps` updates of `batch_size` examples each; an evaluation and a checkpoint
    every so many steps; `check_examples` for the comparison with the exact energy.
    """

    steps: int = 1500
    batch_size: int = 100
    evaluate_every: int = 250
    checkpoint_every: int = 250
    check_examples: int = 100

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")


def train(
    hamiltonian: LossHamiltonian,
    circuit: Brickwork,
    *,
    energy: EnergyKind,
    optimiser: optax.GradientTransformation,
    schedule: Schedule | None = None,
    seed: int = 0,
    params: Angles | None = None,
    validation: Dataset | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Minimise the energy of `hamiltonian` over the circuit's angles.

    The order of the examples is a function of `seed` and the step alone, and everything else that
    the next step needs is in the checkpoint, so that a resumed run continues bit for bit.

    **Arguments:**

    - `energy`: a strategy; with any but `Exact()` its difference from the exact energy on a fixed
      subset of the examples is measured at every evaluation.
    - `optimiser`: any optax transformation.
    - `schedule`: lengths and intervals; defaults to `Schedule()`.
    - `params`: start angles; left out, `circuit.init` with the seed. Their dtype is the precision.
    - `validation`: examples for the accuracy of the likeliest network at every evaluation.
    - `folder`: where checkpoints go, and where training resumes from if it holds one. SIGINT and
      SIGTERM then save and end with status `"interrupted"`.

    **Raises:** `ValueError` if a checkpoint belongs to another problem.
    """
    schedule = schedule or Schedule()
    if params is None:
        params = circuit.init(jax.random.key(seed), hamiltonian.n_qubits)
    loop = _Loop(hamiltonian, circuit, energy, optimiser, schedule, seed, params, validation)
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
    """All that the next step depends on."""

    params: Float[Array, "depth n_qubits kinds"]
    optimiser: Any
    best_bits: UInt8[Array, " n_qubits"]
    best_loss: Float[Array, ""]
    best_accuracy: Float[Array, ""]


class _Loop:
    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Brickwork,
        energy: EnergyKind,
        optimiser: optax.GradientTransformation,
        schedule: Schedule,
        seed: int,
        params: Angles,
        validation: Dataset | None,
    ) -> None:
        self.hamiltonian, self.circuit, self.schedule = hamiltonian, circuit, schedule
        self.optimiser, self.seed, self.validation = optimiser, seed, validation
        dtype = np.dtype(params.dtype)
        self.batch_size = min(schedule.batch_size, hamiltonian.n_examples)
        self.energy = energy.prepare(hamiltonian, circuit, batch_size=self.batch_size, dtype=dtype)
        self.start = _State(
            params,
            optimiser.init(params),
            jnp.zeros(hamiltonian.n_qubits, jnp.uint8),
            jnp.asarray(jnp.inf, dtype),
            jnp.asarray(jnp.nan, dtype),
        )
        self.identity = {
            "energy": energy.name,
            "seed": seed,
            "data": hamiltonian.data.fingerprint,
            "batch_size": self.batch_size,
            "depth": circuit.depth,
            "loss": hamiltonian.loss.name,
            "network": repr(hamiltonian.network),
        }
        self.check = None
        n_check = min(schedule.check_examples, hamiltonian.n_examples)
        if not isinstance(energy, Exact) and not isinstance(hamiltonian.terms, QuadraticTerms):
            rows = np.random.default_rng(seed).permutation(hamiltonian.n_examples)[:n_check]
            kinds = (energy, Exact())
            try:
                prepared = [
                    kind.prepare(hamiltonian, circuit, batch_size=n_check, dtype=dtype)
                    for kind in kinds
                ]
            except ValueError:
                return  # a loss without product terms has nothing to be compared with
            self.check = [(each.value_function(), each.batch(rows)) for each in prepared]

    def _update(
        self, state: _State, batch: Batch
    ) -> tuple[_State, jax.Array, jax.Array, jax.Array]:
        """The next state, the energy and gradient norm before it, and whether all are finite."""
        value, gradient = jax.value_and_grad(self.energy)(state.params, batch)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        state = dataclasses.replace(state, params=params, optimiser=optimiser)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.isfinite(params).all()
        return state, value, norm, finite

    def _batch(self, step: int) -> Batch:
        rows = example_order(self.hamiltonian.n_examples, self.batch_size, self.seed, step)
        return self.energy.batch(rows)

    def _restore(self, folder: Path | None) -> tuple[_State, int, History, float]:
        found = None if folder is None else load_latest_checkpoint(folder, self.start)
        if found is None:
            return self.start, 0, History(), 0.0
        state, metadata = found
        for name, value in self.identity.items():
            if metadata["identity"].get(name) != value:
                raise ValueError(
                    f"the checkpoint in {folder} was made with {name}="
                    f"{metadata['identity'].get(name)}, this run has {name}={value}; "
                    "resume with the same settings or choose an empty folder"
                )
        history = History.from_arrays(metadata["history"])
        return state, metadata["step"], history, metadata["seconds"]

    def run(self, folder: Path | None, progress: Progress) -> TrainResult:
        schedule = self.schedule
        checkpoints = None if folder is None else folder / CHECKPOINTS
        state, step, history, before = self._restore(checkpoints)
        begun = time.perf_counter()

        def seconds() -> float:
            return before + time.perf_counter() - begun

        def save() -> None:
            if checkpoints is not None:
                metadata = {
                    "identity": self.identity,
                    "history": history.to_arrays(),
                    "seconds": seconds(),
                }
                save_checkpoint(checkpoints, step, state, metadata)

        compiled = None
        if step < schedule.steps:
            compiled = jax.jit(self._update).lower(state, self._batch(step)).compile()
        compile_seconds = time.perf_counter() - begun
        status, message, saved = "finished", "", step
        with StopSignals() as stop, progress.start(schedule.steps, initial=step) as display:
            if self.validation is not None and bool(jnp.isfinite(state.best_loss)):
                display.evaluated(validation_accuracy=float(state.best_accuracy))
            while compiled is not None and step < schedule.steps:
                following, value, norm, finite = compiled(state, self._batch(step))
                value, norm = float(value), float(norm)
                if not finite:
                    status = "non-finite"
                    what = f"the energy was {value} and its gradient norm {norm}"
                    if math.isfinite(value) and math.isfinite(norm):
                        what = "the update made the angles non-finite"
                    message = (
                        f"{what} at step {step + 1}; the angles before that step are kept. In a "
                        "new folder, lower optimiser.learning_rate, set optimiser.clip_norm, or "
                        "use train.precision='float64'"
                    )
                    break
                state, step = following, step + 1
                history.record_step(step, energy=value, gradient_norm=norm, seconds=seconds())
                display.update(step, energy=value, gradient_norm=norm)
                if step % schedule.evaluate_every == 0 or step == schedule.steps:
                    state, row = self._evaluate(state)
                    history.record_evaluation(step, row)
                    if self.validation is not None:
                        display.evaluated(validation_accuracy=row["validation_accuracy"])
                if step % schedule.checkpoint_every == 0:
                    save()
                    saved = step
                if stop.requested:
                    status = "interrupted"
                    message = f"stopped by {stop.requested} after step {step}"
                    break
            if saved != step:
                save()
        evaluated = bool(jnp.isfinite(state.best_loss))
        return TrainResult(
            state.params,
            status,
            message,
            step,
            history,
            np.asarray(state.best_bits) if evaluated else None,
            float(state.best_accuracy),
            seconds(),
            compile_seconds,
        )

    def _evaluate(self, state: _State) -> tuple[_State, dict[str, float]]:
        """Measure the energy's error, and the likeliest network on the validation examples."""
        row: dict[str, float] = {}
        if self.check is not None:
            estimate, exact = (
                np.asarray(function(state.params, batch), np.float64)
                for function, batch in self.check
            )
            row["check_energy"] = float(estimate.mean())
            row["check_energy_exact"] = float(exact.mean())
            row["check_error"] = float((estimate - exact).mean())
            row["check_error_max"] = float(np.abs(estimate - exact).max())
        if self.validation is None:
            return state, row
        bits, _ = _likeliest(self.circuit, state.params)
        network, loss = self.hamiltonian.network, self.hamiltonian.loss
        x = self.validation.x.astype(np.float32, copy=False)
        logits = network.logits(np.asarray(bits[:1]), x, step=self.validation.step)[0]
        value = float(loss.value(logits, self.validation.y).mean())
        accuracy = float((loss.predict(logits) == self.validation.y).mean())
        row["validation_loss"], row["validation_accuracy"] = value, accuracy
        if value < float(state.best_loss):
            dtype = state.params.dtype
            state = dataclasses.replace(
                state,
                best_bits=jnp.asarray(bits[0]),
                best_loss=jnp.asarray(value, dtype),
                best_accuracy=jnp.asarray(accuracy, dtype),
            )
        return state, row


@eqx.filter_jit
def _likeliest(circuit: Brickwork, params: Angles) -> tuple[jax.Array, jax.Array]:
    return most_likely(exact_mps(circuit, params), 4)

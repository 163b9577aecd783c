"""The parts of a training run, carried out one by one to be measured."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import optax

from .._types import Angles
from ..circuit import Chain, Graph
from ..data import Dataset
from ..energy import EnergyKind, MPOEnergy
from ..hamiltonian import LossHamiltonian
from .interrupt import StopSignals
from .lbfgs import LBFGS
from .loop import Schedule, _Loop, _Run
from .objective import KLPenalty
from .progress import Progress
from .shards import EnergyShare


class Probe:
    """What [`hypercircuit.train`][] does, stage by stage; every stage returns its seconds.

    **Arguments:** those of `train`, and

    - `folder`: an empty one for checkpoints.
    - `n_shares`: devices that share a step, of which the share of one is carried out; the batch is
      its own.
    """

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain | Graph,
        *,
        energy: EnergyKind,
        optimiser: optax.GradientTransformation | LBFGS,
        penalty: KLPenalty | None,
        schedule: Schedule,
        seed: int,
        params: Angles,
        validation: Dataset,
        folder: Path,
        n_shares: int = 1,
    ) -> None:
        begun = time.perf_counter()
        self._progress = Progress(enabled=False)
        self._loop = _Loop(
            hamiltonian,
            circuit,
            energy,
            penalty,
            optimiser,
            schedule,
            seed,
            params,
            validation,
            n_shares=n_shares,
        )
        self._run = _Run(self._loop.start, self._loop.identity, folder)
        if isinstance(self._loop.energy, MPOEnergy):
            with self._progress.start(1, initial=0) as display:
                self._loop._begin(self._loop.energy, self._run, display, StopSignals())
        #: Of the energy's preparation, the compression of operators included.
        self.prepare_seconds = time.perf_counter() - begun
        self._compiled: jax.stages.Compiled | None = None

    def compile(self) -> float:
        """Compile the step."""
        begun = time.perf_counter()
        inputs = self._loop._inputs(self._run)
        self._compiled = jax.jit(self._loop._update).lower(*inputs).compile()
        return time.perf_counter() - begun

    @property
    def exchanged(self) -> int:
        """Numbers that the devices exchange for the state before every step."""
        energy = self._loop.energy
        shared = energy.state if isinstance(energy, EnergyShare) else None
        return 0 if shared is None else shared.exchanged

    @property
    def planned_bytes(self) -> int:
        """What XLA plans for arguments, results and between them; 0 where it does not say."""
        analysis = None if self._compiled is None else self._compiled.memory_analysis()
        if analysis is None:
            return 0
        return int(
            analysis.temp_size_in_bytes
            + analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
        )

    def step(self) -> float:
        """Make an update, and record it as training does."""
        assert self._compiled is not None
        begun = time.perf_counter()
        following, made = self._compiled(*self._loop._inputs(self._run))
        more = {name: float(value) for name, value in made.penalty.items()}
        self._run.record(following, float(made.energy), float(made.gradient_norm), more)
        return time.perf_counter() - begun

    def trust(self) -> float:
        """Measure the operators' error on samples of the state; 0 without operators."""
        energy = self._loop.energy
        if not isinstance(energy, MPOEnergy):
            return 0.0
        begun = time.perf_counter()
        energy.measure(self._run.state.params, jax.random.key(0))
        return time.perf_counter() - begun

    def evaluate(self) -> float:
        """Measure errors and the likeliest network."""
        begun = time.perf_counter()
        with self._progress.start(1, initial=0) as display:
            self._loop._evaluate(self._run, display)
        return time.perf_counter() - begun

    def save(self) -> float:
        """Write a checkpoint."""
        begun = time.perf_counter()
        self._run.save()
        return time.perf_counter() - begun

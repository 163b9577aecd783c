"""How a configured problem is solved: its energy, optimiser and penalty."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import optax

from ._types import Angles
from .circuit import Ansatz, Truncated
from .config import Config, ConfigError
from .energy import (
    MPO,
    Contraction,
    Cumulant,
    EnergyKind,
    Exact,
    Sampled,
    Statevector,
    choose_energy,
    why_not_exact,
)
from .energy.dense import check_statevector
from .hamiltonian import LossHamiltonian, NoTerms
from .hamiltonian.mpo import check_route
from .problem import Problem, bare_circuit
from .state import Born, born
from .state.born import AT_ONCE
from .train import LBFGS, KLPenalty, make_optimiser, make_schedule

Report = Callable[[str], None]


def configured_energy(
    config: Config, hamiltonian: LossHamiltonian, circuit: Ansatz, report: Report
) -> EnergyKind:
    """The configured strategy; `"auto"` says which one it chose and why.

    **Raises:** `ConfigError` for a strategy that the loss does not have.
    """
    settings = config.energy
    if settings.kind == "contraction" or config.circuit.ansatz == "graph":
        if isinstance(hamiltonian.terms, NoTerms):
            raise ConfigError(
                f"energy.kind='contraction' is not possible: {hamiltonian.terms.reason}; take "
                "circuit.ansatz='brickwork' and energy.kind='sampled'"
            )
        return configured_contraction(config)
    if settings.kind == "auto":
        return _chosen_energy(hamiltonian, circuit, settings.samples, report)
    if settings.kind == "statevector":
        check_statevector(hamiltonian.n_qubits)
    if settings.kind == "mpo":
        check_route(hamiltonian.network, hamiltonian.loss, config.mpo.max_bond)
    kinds: dict[str, EnergyKind] = {
        "exact": Exact(),
        "cumulant": Cumulant(settings.order),
        "sampled": Sampled(settings.samples),
        "statevector": Statevector(),
        "mpo": _operators(config),
    }
    if isinstance(hamiltonian.terms, NoTerms) and settings.kind in (
        "exact",
        "statevector",
        "mpo",
    ):
        raise ConfigError(
            f"energy.kind={settings.kind!r} is not possible: {hamiltonian.terms.reason}; "
            "set energy.kind='sampled', or 'cumulant', an approximation"
        )
    if isinstance(hamiltonian.terms, NoTerms) and settings.kind == "cumulant":
        report(
            f"energy {kinds['cumulant'].name}, an approximation, as configured: there is no exact "
            f"one ({hamiltonian.terms.reason}); its error is measured against samples"
        )
    return kinds[settings.kind]


def _operators(config: Config) -> MPO:
    settings = config.mpo
    return MPO(
        settings.max_bond,
        tolerance=settings.tolerance,
        metric="state" if settings.metric == "auto" else settings.metric,
        trust=settings.trust,
        check_every=settings.check_every,
        samples=settings.samples,
    )


def configured_contraction(config: Config) -> Contraction:
    """The contraction of graphs within the configured limits."""
    settings = config.energy
    cache = settings.path_cache or None
    return Contraction(settings.max_bytes, settings.max_flops, cache=cache)


def check_budget(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    kind: Contraction,
    report: Report,
) -> None:
    """Report what a batch costs; refuse what training or decoding could not pay."""
    circuit, n_examples = bare_circuit(problem.circuit), hamiltonian.n_examples
    dtype = np.dtype(config.train.precision)
    size = min(config.train.batch_size or n_examples, n_examples)
    cost = kind.estimate(hamiltonian, circuit, batch_size=size, dtype=dtype)
    report(cost.describe())
    cost.check(kind.budget)
    params = jax.numpy.zeros(circuit.shape(hamiltonian.n_qubits), dtype)
    side_by_side = max(config.decode.samples, config.decode.beam, AT_ONCE)
    born_state(config, circuit, params).check(side_by_side)


def born_state(config: Config, circuit: Ansatz, params: Angles) -> Born:
    """The Born distribution, contracted within the same limits where it is a graph's."""
    kind = configured_contraction(config)
    return born(circuit, params, budget=kind.budget, search=kind.search)


def _chosen_energy(
    hamiltonian: LossHamiltonian, circuit: Ansatz, n_samples: int, report: Report
) -> EnergyKind:
    """`energy.kind = "auto"`: what is possible, and the sentence that says why."""
    sampled = why_not_exact(hamiltonian, circuit) is not None
    kind, why = choose_energy(hamiltonian, Sampled(n_samples) if sampled else None, circuit)
    report(f"energy {why}")
    return kind


def configured_optimiser(config: Config) -> optax.GradientTransformation | LBFGS:
    """The optimiser, with its schedule.

    **Raises:** `ValueError` for one that optax does not have, or its options.
    """
    settings = config.optimiser
    if settings.name == "lbfgs":
        return LBFGS(**settings.options)
    return make_optimiser(
        settings.name,
        settings.learning_rate,
        schedule=settings.schedule,
        schedule_options=settings.schedule_options,
        options=settings.options,
        steps=config.train.steps,
        clip_norm=settings.clip_norm,
    )


def configured_penalty(config: Config) -> KLPenalty | None:
    """The penalty, or None without one."""
    settings = config.objective
    if settings.beta == 0:
        return None
    beta = make_schedule(
        settings.schedule,
        settings.beta,
        steps=config.train.steps,
        options=settings.schedule_options,
    )
    return KLPenalty(beta, settings.prior, settings.samples)


def warn_of_start(config: Config, circuit: Ansatz, n_qubits: int, report: Report) -> None:
    """Say where a truncated state's first gradient is not the exact one: at a product state."""
    settings = config.circuit
    at_rest = settings.init == "near-uniform" and settings.init_scale == 0
    if isinstance(circuit, Truncated) and at_rest:
        exact = circuit.exact_layers(n_qubits)
        if exact < circuit.depth:
            report(
                "warning: circuit.init_scale=0 starts at a product state, where the gradient of "
                f"the truncating layers {exact + 1} to {circuit.depth} may miss what would enter "
                "through empty directions; set circuit.init_scale above 0, such as 0.1, or "
                "state.engine='exact'"
            )


def check_shared(config: Config) -> None:
    """Refuse to train with several processes what they cannot share out.

    **Raises:** `ConfigError` for an energy of all the examples at once.
    """
    if config.energy.kind in ("statevector", "mpo"):
        raise ConfigError(
            f"energy.kind={config.energy.kind!r} is the energy of all the examples at once and "
            "trains in one process; start one process, or set energy.kind='exact'"
        )


def check_settings(config: Config) -> None:
    """Refuse what training would refuse before it reads any data.

    **Raises:** `ValueError` for an optimiser or a schedule that optax does not have, or their
    options.
    """
    configured_optimiser(config)
    configured_penalty(config)

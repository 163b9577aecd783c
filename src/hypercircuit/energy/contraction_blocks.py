"""What the contracted energies share: networks of labelled sites, block by block where that serves.

Every output of a linear network owns a block of neighbouring sites. Blocks whose light cones differ
in the names of their qubits only share a path and a program.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from .._types import Angles
from ..circuit import Ansatz, Brickwork, Graph
from ..circuit.brickwork import rotation_matrices
from ..hamiltonian import LossHamiltonian
from ..state import State
from ..state.contraction import Budget, Contraction, ContractionCost, in_batches, plan_contraction
from ..state.paths import PathSearch
from ..state.schedule import TERMS
from ..state.worldlines import Worldlines, as_graph, worldlines
from .base import Batch, PreparedEnergy
from .plan import Layout


class ContractionEnergy(PreparedEnergy):
    """See [`hypercircuit.Contraction`][].

    **Arguments:**

    - `budget`, `search`: of memory and work, and for paths.
    - `fixed`: bits by site; the energy is that of the loss times the projector on them.

    **Attributes:**

    - `cost`: of value and gradient of one batch.
    - `projector`: the factors (sites, 2) of the fixed sites, in rising order.
    """

    graphs = True

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
        budget: Budget,
        search: PathSearch,
        fixed: Mapping[int, int],
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        assert isinstance(circuit, (Brickwork, Graph))
        self.graph = as_graph(circuit, hamiltonian.n_qubits)
        self.budget, self.search, self.fixed = budget, search, dict(fixed)
        bits = [fixed[site] for site in sorted(fixed)]
        self.projector = np.eye(2)[np.array(bits, int)].astype(self.dtype)
        self.cost = self.plan()

    @abc.abstractmethod
    def plan(self) -> ContractionCost:
        """Find the paths, once, and say what value and gradient of one batch cost."""

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        """Refused: contractions start from the angles.

        **Raises:** `ValueError`, always.
        """
        raise ValueError(
            "a contraction starts from the circuit's angles, not from a matrix product state; "
            "call per_example(params, batch), or take Exact() for a state"
        )

    @abc.abstractmethod
    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        """The energy of every example in the state that the circuit makes of `params`."""

    def cone(
        self, labels: Mapping[int, tuple[str, ...]]
    ) -> tuple[Worldlines, dict[int, tuple[str, ...]]]:
        """The light cone of labelled sites and of the fixed ones, and all labels within it."""
        every = {**labels, **dict.fromkeys(self.fixed, ())}
        lines = worldlines(self.graph, every)
        place = {qubit: number for number, qubit in enumerate(lines.qubits)}
        return lines, {place[site]: own for site, own in every.items()}

    def network(
        self,
        lines: Worldlines,
        labels: Mapping[int, tuple[str, ...]],
        terms: int,
        sizes: Mapping[str, int] | None = None,
        extras: Sequence[Sequence[Sequence[str]]] = (),
        output: Sequence[str] = (TERMS,),
        order: int = 0,
    ) -> Contraction:
        """The contraction over a cone; for the arguments see `plan_contraction`.

        `order` derivatives in forward mode are taken of it: its cost holds them.
        """
        budget = dataclasses.replace(self.budget, max_bytes=self.budget.max_bytes / 2**order)
        found = plan_contraction(
            lines,
            labels,
            output,
            sizes or {},
            extras=extras,
            terms=terms,
            itemsize=2 * self.dtype.itemsize,
            budget=budget,
            search=self.search,
        )
        return dataclasses.replace(found, cost=found.cost.derived(order))


def turns(angle: Float[Array, "*axes sites"]) -> Complex[Array, "sites *axes 2"]:
    """The factors ``exp(i angle bit)``."""
    angle = jnp.moveaxis(angle, -1, 0)
    turned = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    return jnp.stack([jnp.ones_like(turned), turned], axis=-1)


def with_derivatives(
    function: Callable[[jax.Array], jax.Array], order: int, dtype: np.dtype
) -> tuple[jax.Array, ...]:
    """A function of one real number at zero, and its first `order` derivatives."""

    def found(e: jax.Array) -> tuple[jax.Array, ...]:
        return (function(e),)

    for _ in range(order):

        def derived(e: jax.Array, before: Any = found) -> tuple[jax.Array, ...]:
            values, slopes = jax.jvp(before, (e,), (jnp.ones_like(e),))
            return (*values, slopes[-1])

        found = derived
    return found(jnp.zeros((), dtype))


def active_places(hamiltonian: LossHamiltonian, layout: Layout) -> Int[np.ndarray, " places"]:
    """The places within a block whose input is not zero in all examples; at least one.

    A block of `layout` may hold several of the register's.
    """
    fan_in = hamiltonian.network.register.blocks.fan_in
    found = np.zeros(fan_in, bool)
    n_examples = hamiltonian.n_examples
    for part in np.array_split(np.arange(n_examples), -(-n_examples // 4096)):
        found |= (hamiltonian.inputs(part) != 0).any(0)
    found[0] |= not found.any()
    return np.flatnonzero(np.tile(found, layout.fan_in // fan_in))


class Blocks:
    """Expectations of operators on the sites of one block at a time, for every block.

    **Arguments:**

    - `active`: the places within a block where operators act.
    - `terms`: of every block.
    - `order`: derivatives that are taken in forward mode.

    **Attributes:**

    - `cost`: of all blocks.
    """

    def __init__(
        self,
        energy: ContractionEnergy,
        layout: Layout,
        active: np.ndarray,
        terms: int,
        order: int = 0,
    ) -> None:
        self.projector = energy.projector
        found: dict[tuple, list[tuple[int, Worldlines]]] = {}
        for block in range(layout.n_blocks):
            sites = layout.start + block * layout.fan_in + active
            lines, labels = energy.cone(dict.fromkeys(sites.tolist(), (TERMS,)))
            key = (lines.key, tuple(sorted(labels.items())))
            found.setdefault(key, []).append((block, lines))
        self.alike: list[tuple[Contraction, np.ndarray, np.ndarray]] = []
        for (_, own), members in found.items():
            network = energy.network(members[0][1], dict(own), terms, order=order)
            blocks = np.array([block for block, _ in members])
            qubits = np.array([lines.qubits for _, lines in members])
            self.alike.append((network, blocks, qubits))
        first, *others = (network.cost.times(len(blocks)) for network, blocks, _ in self.alike)
        self.cost = sum(others, first)

    def total(self, params: Angles, function, per_block) -> jax.Array:  # type: ignore[no-untyped-def]
        """The sum over blocks of ``function(contract, arguments of the block)``.

        `contract` takes factors (sites, terms, 2) of at most `terms_at_once` terms; `per_block`
        are arrays whose first axis is that of the blocks.
        """
        parts = []
        for network, blocks, qubits in self.alike:

            def one(arguments, network=network):  # type: ignore[no-untyped-def]
                own, rest = arguments
                gates = rotation_matrices(params[:, own])

                def contract(factors: jax.Array) -> jax.Array:
                    operators = {(TERMS,): factors, (): jnp.asarray(self.projector)}
                    return network(gates, operators)

                return function(contract, network.terms_at_once, rest)

            chosen = jax.tree.map(lambda each, blocks=blocks: jnp.asarray(each)[blocks], per_block)
            arguments = (jnp.asarray(qubits), chosen)
            if len(blocks) == 1:
                parts.append(one(jax.tree.map(lambda each: each[0], arguments)))
            else:
                parts.append(jax.lax.map(jax.checkpoint(one), arguments).sum(0))
        return sum(parts[1:], parts[0])

    def moments(self, params: Angles, gain: float, order: int, x, function, rest):  # type: ignore[no-untyped-def]
        """The sum over blocks of a function of ``<1>, <y>, .. <y^order>`` of every example.

        y is the block's linear form without its middle, ``gain sum_j x_j (bit_j - 1/2)``.
        """
        x = jnp.asarray(x)

        def block(contract, at_once, rest):  # type: ignore[no-untyped-def]
            def terms(x):  # type: ignore[no-untyped-def]
                half = 0.5 * gain * x.T

                def generating(e: jax.Array) -> jax.Array:
                    return contract(jnp.exp(e * jnp.stack([-half, half], axis=-1))).real

                return jnp.stack(with_derivatives(generating, order, x.dtype), axis=1)

            return function(in_batches(terms, x, len(x), at_once), rest)

        return self.total(params, block, rest)

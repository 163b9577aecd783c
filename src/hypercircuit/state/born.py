"""The Born distribution of any circuit: what training and decoding ask of a state.

A chain answers from its matrix product state, exact or not. A graph answers

* up to 24 qubits from all its amplitudes;
* above, by contractions: bits are drawn site by site, each from its distribution given those
  before it. The factors of the drawn sites are projectors divided by the probability of the drawn
  bit, so that every contraction is a conditional probability and nothing underflows; samples (or
  beams) are contracted side by side. n qubits take n contractions.
"""

from __future__ import annotations

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, UInt8

from .._types import Angles
from ..circuit import Ansatz, Chain, Graph
from ..circuit.brickwork import rotation_matrices
from .amplitudes import with_cx, with_gates
from .contraction import Budget, Contraction, in_batches, plan_contraction
from .moments import joint_probabilities, marginals
from .paths import PathSearch
from .prepare import prepare_state
from .sampling import log_probability, most_likely, sample
from .schedule import TERMS
from .worldlines import worldlines

#: Up to this many qubits a graph's amplitudes are written out.
MAX_AMPLITUDES = 24
#: Networks that probabilities of groups of bits are contracted side by side.
AT_ONCE = 64
_FLOOR = 1e-30

Networks = UInt8[Array | np.ndarray, "n n_qubits"]
LogProbabilities = Float[Array | np.ndarray, " n"]


class Born(abc.ABC):
    """What a state says about networks; probabilities are exact, logs natural."""

    def check(self, networks: int) -> None:
        """Whether so many networks can be drawn side by side, before any is.

        **Raises:** `ValueError` if that exceeds the budget.
        """
        return None

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, n_samples: int) -> tuple[Networks, LogProbabilities]:
        """Independent networks and the logs of their probabilities."""

    @abc.abstractmethod
    def log_probability(self, bits: Integer[Any, "n n_qubits"]) -> LogProbabilities:
        """The logs of the probabilities of some networks."""

    @abc.abstractmethod
    def most_likely(self, width: int) -> tuple[Networks, LogProbabilities]:
        """Likely networks, best first: exact where all amplitudes are written out, by a beam
        search of this width otherwise."""

    @abc.abstractmethod
    def marginals(self) -> Float[np.ndarray, " n_qubits"]:
        """<Z> of every qubit, +1 is surely bit 0."""

    @abc.abstractmethod
    def joint_probabilities(
        self, sites: Int[np.ndarray, "groups bits"]
    ) -> Float[np.ndarray, "groups codes"]:
        """The distribution of groups of bits, the first one of a group most significant."""


def born(
    circuit: Ansatz,
    params: Angles,
    *,
    budget: Budget | None = None,
    search: PathSearch | None = None,
) -> Born:
    """The Born distribution of the state that a circuit makes of `params`.

    **Arguments:**

    - `budget`, `search`: for a graph of more than 24 qubits; defaults to those of
      [`hypercircuit.Contraction`][].

    **Raises:** `ValueError`, when asked, for a graph whose contractions exceed the budget.
    """
    if not isinstance(circuit, Graph):
        return _Chain(circuit, params)
    circuit.shape(params.shape[1])
    if params.shape[1] <= MAX_AMPLITUDES:
        return _Amplitudes(circuit, params)
    return _Contracted(circuit, params, budget or Budget(), search or PathSearch())


class _Chain(Born):
    def __init__(self, circuit: Chain, params: Angles) -> None:
        self._circuit, self._params = circuit, params

    @functools.cached_property
    def _mps(self) -> Any:
        return jax.jit(lambda p: prepare_state(self._circuit, p))(self._params)

    def sample(self, key: PRNGKeyArray, n_samples: int) -> tuple[Networks, LogProbabilities]:
        return sample(self._mps, key, n_samples)

    def log_probability(self, bits: Any) -> LogProbabilities:
        return log_probability(self._mps, jnp.asarray(bits))

    def most_likely(self, width: int) -> tuple[Networks, LogProbabilities]:
        return most_likely(self._mps, width)

    def marginals(self) -> np.ndarray:
        probe = jax.jit(lambda p: marginals(prepare_state(self._circuit, p)))
        return np.asarray(probe(self._params))

    def joint_probabilities(self, sites: np.ndarray) -> np.ndarray:
        probe = jax.jit(lambda p: joint_probabilities(prepare_state(self._circuit, p), sites))
        return np.asarray(probe(self._params))


def graph_statevector(graph: Graph, params: Angles) -> Array:
    """All 2^n_qubits amplitudes, site 0 most significant; differentiable.

    **Raises:** `ValueError` above 24 qubits.
    """
    n_qubits = params.shape[1]
    graph.shape(n_qubits)
    if n_qubits > MAX_AMPLITUDES:
        raise ValueError(
            f"a statevector of {n_qubits} qubits does not fit in memory; at most "
            f"{MAX_AMPLITUDES} qubits are written out"
        )
    gates = rotation_matrices(params)
    state = jnp.zeros(2**n_qubits, gates.dtype).at[0].set(1)
    for layer in range(1, graph.depth + 1):
        for pair in graph.layer(layer):
            state = with_cx(state, n_qubits, pair)
        state = with_gates(state, gates[layer - 1])
    return state


@eqx.filter_jit
def _probabilities(graph: Graph, params: Angles) -> Array:
    state = graph_statevector(graph, params)
    return state.real**2 + state.imag**2


class _Amplitudes(Born):
    def __init__(self, circuit: Graph, params: Angles) -> None:
        self._n_qubits = params.shape[1]
        table = np.asarray(_probabilities(circuit, params), np.float64)
        self._table = table / table.sum()

    def _bits(self, codes: np.ndarray) -> np.ndarray:
        shifts = np.arange(self._n_qubits)[::-1]
        return (codes[:, None] >> shifts & 1).astype(np.uint8)

    def _logs(self, codes: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(self._table[codes], _FLOOR))

    def sample(self, key: PRNGKeyArray, n_samples: int) -> tuple[Networks, LogProbabilities]:
        uniform = np.random.default_rng(np.asarray(jax.random.key_data(key))).random(n_samples)
        cumulative = np.cumsum(self._table)
        codes = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        return self._bits(codes), self._logs(codes)

    def log_probability(self, bits: Any) -> LogProbabilities:
        powers = 2 ** np.arange(self._n_qubits)[::-1]
        return self._logs(np.asarray(bits, np.int64) @ powers)

    def most_likely(self, width: int) -> tuple[Networks, LogProbabilities]:
        width = min(width, len(self._table))
        best = np.argpartition(-self._table, width - 1)[:width]
        best = best[np.argsort(-self._table[best], kind="stable")]
        return self._bits(best), self._logs(best)

    def marginals(self) -> np.ndarray:
        return 1 - 2 * self.joint_probabilities(np.arange(self._n_qubits)[:, None])[:, 1]

    def joint_probabilities(self, sites: np.ndarray) -> np.ndarray:
        table = self._table.reshape((2,) * self._n_qubits)
        found = []
        for group in sites:
            others = tuple(site for site in range(self._n_qubits) if site not in group)
            rising = np.argsort(np.argsort(group))
            found.append(table.sum(others).transpose(rising).reshape(-1))
        return np.stack(found)


class _Conditionals:
    """The contraction of a whole register for a number of networks side by side."""

    def __init__(
        self,
        graph: Graph,
        n_qubits: int,
        networks: int,
        itemsize: int,
        budget: Budget,
        search: PathSearch,
    ) -> None:
        self._lines = worldlines(graph, range(n_qubits))
        self.n_qubits, self._networks = n_qubits, networks
        self.network: Contraction = plan_contraction(
            self._lines,
            dict.fromkeys(self._lines.sites, (TERMS,)),
            (TERMS,),
            {},
            terms=2 * networks,
            itemsize=itemsize,
            budget=budget,
            search=search,
            only_value=True,
        )
        try:
            self.network.cost.times(n_qubits).check(budget)
        except ValueError as error:
            raise ValueError(
                f"decoding a graph of {n_qubits} qubits draws bit by bit, {n_qubits} contractions "
                f"of {networks} networks, which is too much: {error}"
            ) from error
        self.sample = jax.jit(self._sample)
        self.follow = jax.jit(self._follow)
        self.likeliest = jax.jit(self._likeliest)

    def _values(self, gates: jax.Array, factors: jax.Array) -> jax.Array:
        """The contractions of factors (networks, sites, 2)."""

        def some(factors: jax.Array) -> jax.Array:
            return self.network(gates, {(TERMS,): jnp.swapaxes(factors, 0, 1)}).real

        return in_batches(some, factors, len(factors), self.network.terms_at_once)

    def _given(self, gates: jax.Array, factors: jax.Array, site: jax.Array) -> jax.Array:
        """The probabilities (networks, 2) of a bit, given the factors of the others."""
        both = jnp.eye(2, dtype=factors.dtype)
        tried = jnp.concatenate([factors.at[:, site].set(both[bit]) for bit in (0, 1)])
        values = jnp.maximum(self._values(gates, tried).reshape(2, -1).T, 0)
        return values / jnp.maximum(values.sum(1, keepdims=True), _FLOOR)

    def _scan(self, params: Angles, choose: Any, extra: Any) -> tuple[jax.Array, jax.Array]:
        """Fix one site after the other; `choose` gives parents, bits and logs."""
        gates = self._lines.gates(params)
        dtype = gates.real.dtype

        def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            factors, bits, logs = carry
            site, own = inputs
            given = self._given(gates, factors, site)
            parents, chosen, logs = choose(given, logs, site, own)
            kept = jnp.take_along_axis(given[parents], chosen[:, None], axis=1)
            fixed = jax.nn.one_hot(chosen, 2, dtype=dtype) / jnp.maximum(kept, _FLOOR)
            factors = factors[parents].at[:, site].set(fixed)
            bits = bits[parents].at[:, site].set(chosen.astype(jnp.uint8))
            return (factors, bits, logs), None

        start = (
            jnp.ones((self._networks, self.n_qubits, 2), dtype),
            jnp.zeros((self._networks, self.n_qubits), jnp.uint8),
            jnp.zeros(self._networks, dtype),
        )
        (_, bits, logs), _ = lax.scan(step, start, (jnp.arange(self.n_qubits), extra))
        return bits, logs

    def _sample(self, params: Angles, key: PRNGKeyArray) -> tuple[jax.Array, jax.Array]:
        same = jnp.arange(self._networks)

        def choose(given, logs, site, own):  # type: ignore[no-untyped-def]
            uniform = jax.random.uniform(jax.random.fold_in(key, site), same.shape, given.dtype)
            chosen = (uniform >= given[:, 0]).astype(jnp.int32)
            return same, chosen, logs + _log(given, chosen)

        return self._scan(params, choose, jnp.zeros(self.n_qubits))

    def _follow(self, params: Angles, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
        same = jnp.arange(self._networks)

        def choose(given, logs, site, own):  # type: ignore[no-untyped-def]
            return same, own, logs + _log(given, own)

        return self._scan(params, choose, bits.T.astype(jnp.int32))

    def _likeliest(self, params: Angles) -> tuple[jax.Array, jax.Array]:
        def choose(given, logs, site, own):  # type: ignore[no-untyped-def]
            # At the start all beams are one and the same prefix.
            alone = jnp.where((site == 0) & (jnp.arange(self._networks) > 0), -1e30, logs)
            scores = alone[:, None] + jnp.log(jnp.maximum(given, _FLOOR))
            logs, best = lax.top_k(scores.reshape(-1), self._networks)
            return best // 2, best % 2, logs

        return self._scan(params, choose, jnp.zeros(self.n_qubits))


def _log(given: jax.Array, chosen: jax.Array) -> jax.Array:
    kept = jnp.take_along_axis(given, chosen[:, None], axis=1)[:, 0]
    return jnp.log(jnp.maximum(kept, _FLOOR))


@functools.lru_cache(maxsize=8)
def _conditionals(
    graph: Graph,
    n_qubits: int,
    networks: int,
    itemsize: int,
    budget: Budget,
    search: PathSearch,
) -> _Conditionals:
    """Kept, so that evaluations of one training compile once."""
    return _Conditionals(graph, n_qubits, networks, itemsize, budget, search)


class _Contracted(Born):
    def __init__(self, circuit: Graph, params: Angles, budget: Budget, search: PathSearch) -> None:
        self._graph, self._params, self._budget, self._search = circuit, params, budget, search

    def _of(self, networks: int) -> _Conditionals:
        shape, itemsize = self._params.shape, 2 * self._params.dtype.itemsize
        return _conditionals(self._graph, shape[1], networks, itemsize, self._budget, self._search)

    def check(self, networks: int) -> None:
        self._of(networks)

    def sample(self, key: PRNGKeyArray, n_samples: int) -> tuple[Networks, LogProbabilities]:
        return self._of(n_samples).sample(self._params, key)

    def log_probability(self, bits: Any) -> LogProbabilities:
        return self._of(len(bits)).follow(self._params, jnp.asarray(bits))[1]

    def most_likely(self, width: int) -> tuple[Networks, LogProbabilities]:
        return self._of(width).likeliest(self._params)

    def marginals(self) -> np.ndarray:
        every = np.arange(self._params.shape[1])[:, None]
        return 1 - 2 * self.joint_probabilities(every)[:, 1]

    def joint_probabilities(self, sites: np.ndarray) -> np.ndarray:
        groups, n_bits = sites.shape
        conditionals = self._of(min(groups * 2**n_bits, AT_ONCE))
        codes = np.arange(2**n_bits)[:, None] >> np.arange(n_bits)[::-1] & 1
        dtype = self._params.dtype

        def probe(params: Angles) -> jax.Array:
            gates = conditionals._lines.gates(params)

            def one(group: jax.Array) -> jax.Array:
                factors = jnp.ones((len(codes), conditionals.n_qubits, 2), dtype)
                factors = factors.at[:, group].set(jnp.eye(2, dtype=dtype)[codes])
                return conditionals._values(gates, factors)

            return lax.map(one, jnp.asarray(sites))

        return np.asarray(jax.jit(probe)(self._params))

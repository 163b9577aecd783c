"""One training run on several devices, of one process or of many: examples shared out.

    devices   0                1                2
    params    all              all              all                    replicated
    state     cells 0..c-1     cells c..2c-1    cells 2c..             each its own, then gathered
    batch     rows 0..b-1      rows b..2b-1     rows 2b..n-1, filled   every process its own only
    energy    sum of its rows  sum of its rows  sum of its rows
                  \\________________|________________/
                     sum: energy and gradient, on all devices

Exact states of which an energy takes cumulants are shared out (see `shared_state`); of others every
device makes the whole.
What the host decides from (signals, checkpoints) is agreed upon by small sums of the same kind.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._shards import Shards, is_key
from .._types import Angles, AnyArray
from ..energy import Batch, PreparedEnergy
from ..state import State
from .interrupt import StopSignals
from .shared_state import shared_state


def agree_to_stop(stop: StopSignals, shards: Shards | None) -> bool:
    """Whether a stop signal has reached any process; collective, and noted in `stop`."""
    if shards is None or not shards.several_processes:
        return stop.requested is not None
    number = shards.largest(signal.Signals[stop.requested].value if stop.requested else 0)
    note_signal(stop, number)
    return number != 0


def note_signal(stop: StopSignals, number: int) -> None:
    """Note the signal that reached some process, 0 being none."""
    if number and stop.requested is None:
        stop.requested = signal.Signals(number).name


class EnergyShare(PreparedEnergy):
    """What one of several devices computes in a step, to be measured: its numbers mean nothing.

    **Arguments:**

    - `each`: the energy of its examples.
    - `n_shares`: devices.
    """

    def __init__(self, each: PreparedEnergy, n_shares: int) -> None:
        self.graphs = each.graphs  # type: ignore[misc]
        self.site_tensors = each.site_tensors  # type: ignore[misc]
        super().__init__(each.hamiltonian, each.circuit, each.batch_size, each.dtype)
        self.each, self.state = each, shared_state(each, n_shares)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> Batch:
        return self.each.batch(examples, weights)

    def with_key(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        return self.each.with_key(batch, key)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        return self.each.of_state(mps, batch)

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        if self.state is None:
            return self.each.per_example(params, batch)
        return self.each.of_state(self.state.alone(params), batch)


class ShardedBatch(Batch):
    """Batches of all devices along a leading axis; `key` is common to them.

    `keys` are the numbers of the leaves that stand for random keys.
    """

    weights: Float[AnyArray, "devices n"]
    parts: Batch
    key: PRNGKeyArray | None
    keys: tuple[int, ...] = eqx.field(static=True)


class ShardedEnergy(PreparedEnergy):
    """An energy whose examples are shared out over devices: equal to `energy`'s up to rounding.

    **Arguments:**

    - `prepare`: the energy for a given number of examples, which is the share of one device.
    - `batch_size`: examples of a batch over all devices. Where they do not share out evenly, the
      last devices get rows of weight zero.
    - `shards`: the devices.
    """

    def __init__(
        self, prepare: Callable[[int], PreparedEnergy], batch_size: int, shards: Shards
    ) -> None:
        each = prepare(-(-batch_size // len(shards)))
        self.graphs = each.graphs  # type: ignore[misc]
        self.site_tensors = each.site_tensors  # type: ignore[misc]
        super().__init__(each.hamiltonian, each.circuit, batch_size, each.dtype)
        self.each, self.shards = each, shards
        self.state = shared_state(each, len(shards))
        self._sums = shards.map(self._own_sum, split=(False, True, False))
        self._values = shards.map(self._own_values, split=(False, True, False))

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> ShardedBatch:
        """Lay out this process's share of the examples."""
        n, size = len(examples), self.each.batch_size
        if not 1 <= n <= self.batch_size:
            raise ValueError(f"a batch takes 1 to {self.batch_size} examples, got {n}")
        if weights is None:
            weights = np.full(n, 1 / n)
        parts = []
        for number, _ in self.shards.own:
            share = slice(number * size, (number + 1) * size)
            rows, own = examples[share], weights[share]
            if not len(rows):
                rows, own = examples[:1], np.zeros(1)
            parts.append(self.each.batch(rows, own))
        keys = tuple(n for n, leaf in enumerate(jax.tree.leaves(parts[0])) if is_key(leaf))
        plain = [
            jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, part)
            for part in parts
        ]
        stacked = self.shards.stack(plain)
        return ShardedBatch(stacked.weights, stacked, None, keys)

    def with_key(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        assert isinstance(batch, ShardedBatch)
        return dataclasses.replace(batch, key=key)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        raise NotImplementedError("devices make the state by themselves; call per_example")

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        return self._values(params, *_split(batch))

    def __call__(self, params: Angles, batch: Batch) -> Float[Array, ""]:
        return self._sums(params, *_split(batch)).sum()

    def value_function(self) -> Callable[[Angles, Batch], jax.Array]:
        return jax.jit(self.per_example, out_shardings=self.shards.replicated)

    def _own(self, batch: ShardedBatch, key: PRNGKeyArray | None) -> Batch:
        """The batch of the device that this runs on."""
        leaves, structure = jax.tree.flatten(batch.parts)
        leaves = [leaf[0] for leaf in leaves]
        for number in batch.keys:
            leaves[number] = jax.random.wrap_key_data(leaves[number])
        part: Batch = jax.tree.unflatten(structure, leaves)
        return part if key is None else self.each.with_key(part, key)

    def _own_sum(
        self, params: Angles, batch: ShardedBatch, key: PRNGKeyArray | None
    ) -> Float[Array, " one"]:
        own = self._own(batch, key)
        return jnp.sum(own.weights * self._of_own(params, own))[None]

    def _own_values(
        self, params: Angles, batch: ShardedBatch, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        return self._of_own(params, self._own(batch, key))

    def _of_own(self, params: Angles, own: Batch) -> Float[Array, " n"]:
        """The energies of one device's examples."""
        if self.state is None:
            return self.each.per_example(params, own)
        return self.each.of_state(self.state(params), own)


def _split(batch: Batch) -> tuple[ShardedBatch, PRNGKeyArray | None]:
    """What is shared out, and what all devices have."""
    assert isinstance(batch, ShardedBatch)
    return dataclasses.replace(batch, key=None), batch.key

"""One computation on several devices, of one process or of many: examples shared out.

    devices   0                1                2
    params    all              all              all                    replicated
    batch     rows 0..b-1      rows b..2b-1     rows 2b..n-1, filled   every process its own only
    energy    sum of its rows  sum of its rows  sum of its rows
                  \\________________|________________/
                     sum: energy and gradient, on all devices

Every process runs the same program; see `hypercircuit.cluster` for how processes meet. What the
host decides from (signals, checkpoints) is agreed upon by small sums of the same kind.
"""

from __future__ import annotations

import dataclasses
import hashlib
import signal
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._types import Angles, AnyArray
from ..energy import Batch, PreparedEnergy
from ..state import ExactMPS
from .interrupt import StopSignals

AXIS = "devices"


def device_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """The devices that a computation is shared out over, as a mesh with the one axis "devices".

    **Arguments:**

    - `devices`: left out, all devices of all processes.
    """
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


class Shards:
    """Places arrays on the devices of a mesh, and lets its processes agree.

    All methods but `local` and `first` are collective: every process calls them in the same order.

    **Raises:** `ValueError` for a mesh of another form than `device_mesh` makes.
    """

    def __init__(self, mesh: Mesh) -> None:
        if mesh.axis_names != (AXIS,):
            raise ValueError(
                f"mesh must have the one axis {AXIS!r}, got {mesh.axis_names}; make it with "
                "device_mesh()"
            )
        self.mesh = mesh
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(AXIS))
        devices = mesh.devices.tolist()
        process = jax.process_index()
        #: Numbers and devices of this process's shards.
        self.own = [(n, d) for n, d in enumerate(devices) if d.process_index == process]
        self.several_processes = len({device.process_index for device in devices}) > 1
        self._gather = jax.jit(lambda values: values, out_shardings=self.replicated)

    def __len__(self) -> int:
        """The number of devices."""
        return self.mesh.devices.size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return jax.process_index() == 0

    def replicate(self, tree: PyTree) -> PyTree:
        """Arrays that are the same on every process, on all devices."""

        def place(leaf: Any) -> jax.Array:
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, self.replicated, lambda i: host[i])

        return jax.tree.map(place, tree)

    def local(self, tree: PyTree) -> PyTree:
        """Replicated arrays as arrays of this process alone."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def stack(self, parts: list[PyTree]) -> PyTree:
        """One tree for every own device, joined along a new leading axis of all devices."""

        def join(*leaves: Any) -> jax.Array:
            placed = [
                jax.device_put(np.asarray(leaf)[None], device)
                for leaf, (_, device) in zip(leaves, self.own, strict=True)
            ]
            shape = (len(self), *placed[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self.split, placed)

        return jax.tree.map(join, *parts)

    def scatter(self, values: np.ndarray) -> jax.Array:
        """An array that all processes have, its first axis shared out over the devices."""
        return jax.make_array_from_callback(values.shape, self.split, lambda i: values[i].copy())

    def gather(self, tree: PyTree) -> PyTree:
        """Arrays that are split over the devices, complete on every process."""
        return jax.tree.map(np.asarray, self._gather(tree))

    def map(self, function: Callable[..., Any], *, split: tuple[bool, ...]) -> Callable[..., Any]:
        """`function` run on every device by itself, under jit; its results are split.

        Arguments where `split` holds, and results, are trees with a leading axis that is shared
        out; the others are replicated.
        """
        specs = tuple(PartitionSpec(AXIS) if each else PartitionSpec() for each in split)
        # Custom derivatives and loops mix values of one device and of all.
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=specs,
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )

    def largest(self, value: int) -> int:
        """The largest of the processes' numbers."""
        if not self.several_processes:
            return value
        return int(self.gather(self.stack([np.int32(value)] * len(self.own))).max())

    def check_same(self, what: str, content: bytes, remedy: str) -> None:
        """Compare bytes of all processes.

        **Raises:** `ValueError`, on all processes, if they differ.
        """
        if not self.several_processes:
            return
        digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        found = self.gather(self.stack([digest] * len(self.own)))
        if (found != found[0]).any():
            wrong = sorted(
                {
                    device.process_index
                    for device, each in zip(self.mesh.devices.tolist(), found, strict=True)
                    if (each != found[0]).any()
                }
            )
            raise ValueError(
                f"{what} must be the same on all processes, got another on process "
                f"{', '.join(map(str, wrong))} than on process 0; {remedy}"
            )


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
        super().__init__(each.hamiltonian, each.circuit, batch_size, each.dtype)
        self.each, self.shards = each, shards
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
        keys = tuple(n for n, leaf in enumerate(jax.tree.leaves(parts[0])) if _is_key(leaf))
        plain = [
            jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, part)
            for part in parts
        ]
        stacked = self.shards.stack(plain)
        return ShardedBatch(stacked.weights, stacked, None, keys)

    def with_key(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        assert isinstance(batch, ShardedBatch)
        return dataclasses.replace(batch, key=key)

    def of_state(self, mps: ExactMPS, batch: Batch) -> Float[Array, " n"]:
        raise NotImplementedError("every device makes the state by itself; call per_example")

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
        return self.each(params, self._own(batch, key))[None]

    def _own_values(
        self, params: Angles, batch: ShardedBatch, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        return self.each.per_example(params, self._own(batch, key))


def _split(batch: Batch) -> tuple[ShardedBatch, PRNGKeyArray | None]:
    """What is shared out, and what all devices have."""
    assert isinstance(batch, ShardedBatch)
    return dataclasses.replace(batch, key=None), batch.key


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def content_of(tree: PyTree) -> bytes:
    """The bytes of all leaves, for `Shards.check_same`."""
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))

"""Devices of one process or of many that share one computation.

Every process runs the same program and calls the same functions in the same order; see
`hypercircuit.cluster` for how processes meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "devices"


def device_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """The devices that a computation is shared out over, as a mesh with the one axis "devices".

    **Arguments:**

    - `devices`: left out, all devices of all processes.
    """
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


class Shards:
    """Places arrays on the devices of a mesh, and lets its processes agree.

    `gather`, `largest`, `check_same` and functions of `map` are collective: all processes call them
    in the same order.

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
            if is_key(leaf):
                data = place(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
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


def content_of(tree: PyTree) -> bytes:
    """The bytes of all leaves, for `Shards.check_same`."""
    plain = (jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(tree))
    return b"".join(np.asarray(leaf).tobytes() for leaf in plain)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

"""<psi|D|psi> of a circuit on a graph and a product operator D as a network of folded worldlines.

With |v>_Z the bits and |v>_X = H |v>_Z, a CX is a sign between two copies of an index,

    CX = sum_(v, w) (-1)^(v w)  |v><v|_Z (control)  (x)  |w><w|_X (target),

so a qubit's worldline is cut by its CX into *segments*, each with one index: rotations lead from
segment to segment, signs tie segments of different qubits together, and the CX of one qubit that
follow each other in the same role share one segment (a centre that controls a thousand qubits in a
layer has a single index there). Ket and bra are folded: a segment's index u = (v, v') counts to
four.

    |0>--Ry Rz--(u1)--Ry Rz--(u2)--Ry Rz--[d]        qubit 0, d its factor of D
                  |(-1)^(v w)
    |0>--Ry Rz--(u3)--------------Ry Rz---[d]        qubit 1

A worldline of few segments is one tensor; a segment with a single CX is summed out on the spot, and
the tensor has the partner's index in its place. Longer worldlines are chains of matrices.

Gates outside of the past light cone of the sites where D acts cancel and are left out, and so do
CX that commute with what D has become when it reaches them. All entries
of all partial contractions are at most one in size (projected and traced states), so nothing
overflows on any number of qubits.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from ..circuit import Brickwork, Graph
from ..circuit.brickwork import rotation_matrices

#: Worldlines of up to this many segments are one tensor of 4^segments entries.
MAX_SEGMENTS = 3

_FLIP = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
#: Signs between two folded indices, (-1)^(v w + v' w').
_SIGNS = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]])


@dataclasses.dataclass(frozen=True)
class Segment:
    """A worldline between two rotations: its layer, and whether its basis is that of targets."""

    layer: int
    flipped: bool


@dataclasses.dataclass(frozen=True)
class Shape:
    """What equal worldlines have in common.

    **Attributes:**

    - `segments`: in the order of time.
    - `summed`: per segment, whether it is summed out in favour of its partner's index.
    - `varies`: whether an operator acts on the qubit; it is traced out otherwise.
    """

    segments: tuple[Segment, ...]
    summed: tuple[bool, ...]
    varies: bool

    @property
    def whole(self) -> bool:
        """Whether the worldline is one tensor."""
        return len(self.segments) <= MAX_SEGMENTS


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of the network.

    **Attributes:**

    - `pool`: which stack of equal tensors it belongs to: a number of a worldline's shape and of a
      piece of it, or (-1, 0) for the signs.
    - `position`: its place in the stack.
    - `indices`: numbers of indices of dimension four.
    - `site`: the qubit, counted within the cone, if an operator acts on this tensor; else -1.
    """

    pool: tuple[int, int]
    position: int
    indices: tuple[int, ...]
    site: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Worldlines:
    """The network of the past light cone of some sites.

    **Attributes:**

    - `qubits`: the cone's qubits in rising order; everything else counts within them.
    - `sites`: where operators act, in rising order.
    - `shapes`: of worldlines, and `members` the qubits of each.
    - `tensors`: the network.
    - `depth`: layers of the circuit.
    """

    qubits: tuple[int, ...]
    sites: tuple[int, ...]
    shapes: tuple[Shape, ...]
    members: tuple[tuple[int, ...], ...]
    tensors: tuple[Tensor, ...]
    depth: int

    @property
    def key(self) -> tuple:
        """Equal for networks that differ in the names of their qubits only."""
        return (self.sites, self.shapes, self.members, self.tensors, self.depth)

    def gates(self, params: jax.Array) -> Inexact[Array, "depth cone 2 2"]:
        """The rotations of the cone's qubits."""
        return rotation_matrices(params[:, np.array(self.qubits, int)])

    def stacks(self, gates: Inexact[Array, "depth cone 2 2"]) -> dict[tuple[int, int], jax.Array]:
        """Every stack of tensors: (members, 4, ..), on sites with an operator (members, 2, 4, ..)
        by the final bit."""
        found: dict[tuple[int, int], jax.Array] = {}
        for number, (shape, members) in enumerate(zip(self.shapes, self.members, strict=True)):
            pieces = _pieces(shape, gates[:, np.array(members)], self.depth)
            found |= {(number, place): piece for place, piece in enumerate(pieces)}
        found[(-1, 0)] = jnp.asarray(_SIGNS, gates.dtype)[None]
        return found


def as_graph(circuit: Brickwork | Graph, n_qubits: int) -> Graph:
    """The circuit as one on a graph, with the same parameters."""
    if isinstance(circuit, Graph):
        circuit.shape(n_qubits)
        return circuit
    return Graph.path(n_qubits, circuit.depth, circuit.rotations)


def worldlines(circuit: Graph, sites: Iterable[int]) -> Worldlines:
    """The network of an operator that acts on some sites, at least one."""
    support = sorted(set(sites))
    if not support:
        raise ValueError("sites must hold at least one qubit, got none")
    # What the operator is on every active qubit, seen from before a CX: diagonal in the basis of
    # bits ("Z"), in that of targets ("X"), or neither. A CX whose ends are diagonal in its own
    # bases, or free, commutes and cancels.
    active = dict.fromkeys(support, "")
    events = []
    for layer in range(circuit.depth, 1, -1):
        active = dict.fromkeys(active, "")
        for control, target in reversed(circuit.layer(layer)):
            on_control, on_target = active.get(control), active.get(target)
            if on_control in (None, "Z") and on_target in (None, "X"):
                continue
            active[control] = "Z" if on_control in (None, "Z") else ""
            active[target] = "X" if on_target in (None, "X") else ""
            events.append((layer, control, target))
    events.reverse()
    qubits = sorted(active)
    name = {qubit: number for number, qubit in enumerate(qubits)}
    lines: list[list[Segment]] = [[] for _ in qubits]
    ties: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for layer, control, target in events:
        ends = []
        for qubit, flipped in ((name[control], False), (name[target], True)):
            segment = Segment(layer, flipped)
            if not lines[qubit] or lines[qubit][-1] != segment:
                lines[qubit].append(segment)
            ends.append((qubit, len(lines[qubit]) - 1))
        ties.append((ends[0], ends[1]))
    return _assemble(qubits, [name[site] for site in support], lines, ties, circuit.depth)


def _assemble(
    qubits: Sequence[int],
    sites: Sequence[int],
    lines: Sequence[Sequence[Segment]],
    ties: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    depth: int,
) -> Worldlines:
    counts: dict[tuple[int, int], int] = {}
    for end in (end for tie in ties for end in tie):
        counts[end] = counts.get(end, 0) + 1
    index = {(qubit, place): None for qubit, line in enumerate(lines) for place in range(len(line))}
    number = {end: n for n, end in enumerate(index)}
    instead: dict[tuple[int, int], int] = {}
    tensors = []
    for control, target in ties:
        for own, other in ((target, control), (control, target)):
            if counts[own] == 1 and len(lines[own[0]]) <= MAX_SEGMENTS and other not in instead:
                instead[own] = number[other]
                break
        else:
            tensors.append(Tensor((-1, 0), 0, (number[control], number[target])))
    shapes: dict[Shape, int] = {}
    members: list[list[int]] = []
    operators = set(sites)
    for qubit, line in enumerate(lines):
        ends = [(qubit, place) for place in range(len(line))]
        summed = tuple(end in instead for end in ends)
        shape = Shape(tuple(line), summed, qubit in operators)
        kind = shapes.setdefault(shape, len(shapes))
        if kind == len(members):
            members.append([])
        position, site = len(members[kind]), qubit if shape.varies else -1
        members[kind].append(qubit)
        names = [instead.get(end, number[end]) for end in ends]
        if shape.whole:
            tensors.append(Tensor((kind, 0), position, tuple(names), site))
            continue
        for place in range(1, len(line)):
            tensors.append(Tensor((kind, place - 1), position, tuple(names[place - 1 : place + 1])))
        tensors.append(Tensor((kind, len(line) - 1), position, (names[-1],), site))
    return Worldlines(
        tuple(qubits),
        tuple(sites),
        tuple(shapes),
        tuple(map(tuple, members)),
        tuple(tensors),
        depth,
    )


def _pieces(shape: Shape, gates: jax.Array, depth: int) -> list[jax.Array]:
    """The tensors of all worldlines of one shape, gates (depth, members, 2, 2)."""
    flip = jnp.asarray(_FLIP, gates.dtype)
    n_members = gates.shape[1]

    def rotations(first: int, last: int) -> jax.Array:
        """The rotations of layers `first` to `last`."""
        total = jnp.broadcast_to(jnp.eye(2, dtype=gates.dtype), (n_members, 2, 2))
        for layer in range(first, last + 1):
            total = gates[layer - 1] @ total
        return total

    def change(matrix: jax.Array, before: bool, after: bool) -> jax.Array:
        """The matrix between segments of these bases."""
        matrix = matrix @ flip if before else matrix
        return flip @ matrix if after else matrix

    if not shape.segments:
        amplitude = rotations(1, depth)[:, :, 0]
        ends = _fold(amplitude[:, :, None])[..., 0]
        return [ends if shape.varies else ends.sum(1)]
    segments = shape.segments
    first = segments[0]
    start = change(rotations(1, first.layer - 1), False, first.flipped)[:, :, 0]
    steps = [
        change(rotations(a.layer, b.layer - 1), a.flipped, b.flipped)
        for a, b in itertools.pairwise(segments)
    ]
    end = change(rotations(segments[-1].layer, depth), segments[-1].flipped, False)
    if not shape.whole:
        matrices = [jnp.swapaxes(step, 1, 2) for step in steps]
        matrices[0] = start[:, :, None] * matrices[0]
        last = _fold(end)
        return [*(_fold_both(each) for each in matrices), last if shape.varies else last.sum(1)]
    line = start
    for step in steps:
        # (members, .., before) and (members, after, before) -> (members, .., before, after)
        line = line[..., None] * jnp.expand_dims(
            jnp.swapaxes(step, 1, 2), tuple(range(1, line.ndim - 1))
        )
    line = line.reshape(n_members, 1, *line.shape[1:])
    ket = line * jnp.expand_dims(end, tuple(range(2, line.ndim - 1)))
    tensor = _fold(ket)
    if not shape.varies:
        tensor = tensor.sum(1)
    signs = jnp.asarray(_SIGNS, gates.dtype)
    lead = 2 if shape.varies else 1
    for axis, summed in enumerate(shape.summed):
        if summed:
            tensor = jnp.moveaxis(
                jnp.tensordot(tensor, signs, axes=(lead + axis, 0)), -1, lead + axis
            )
    return [tensor]


def _fold(ket: jax.Array) -> jax.Array:
    """(members, s, v1, ..) amplitudes to (members, s, u1, ..), u = (v, v')."""
    count = ket.ndim - 2
    outer = ket.reshape(*ket.shape, *[1] * count) * jnp.conj(ket).reshape(
        *ket.shape[:2], *[1] * count, *ket.shape[2:]
    )
    pairs = [2 + axis + offset for axis in range(count) for offset in (0, count)]
    outer = outer.transpose(0, 1, *pairs)
    return outer.reshape(*ket.shape[:2], *(size * size for size in ket.shape[2:]))


def _fold_both(matrix: jax.Array) -> jax.Array:
    """(members, v, w) to (members, u, u')."""
    outer = matrix[:, :, None, :, None] * jnp.conj(matrix)[:, None, :, None, :]
    return outer.reshape(len(matrix), 4, 4)

"""Hypercircuits on any graph: rings, trees, stars, image grids, a centre tied to every neuron.

The conventions are those of the brickwork: from |0...0>, layer d = 1..depth applies CX on edges,
then Ry(theta) and Rz(phi) on every qubit, so that depth 1 is a product state (CX on |0...0> do
nothing). An edge is a pair (control, target). The edges are properly coloured, so that those of
one colour share no qubit, and `schedule` says which colours a layer applies:

    "colours"   one: layer d applies colour (d - 2) mod n_colours, the one after the other
    "all"       every colour in turn, in each layer from the second one on

    ring of 5, colours 0 1 0 1 2      depth 2: o==o  o==o  o       depth 3: + the edges of colour 1

Where no colours are given, each edge in turn takes the smallest colour free at both its ends. For
the path 0-1-2-.. this makes "colours" the published brickwork, parameter by parameter.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import Angles
from .brickwork import ROTATIONS, start_angles

Edge = tuple[int, int]
SCHEDULES = ("colours", "all")


class Graph(eqx.Module):
    """A circuit of `depth` layers whose CX act along the edges of a graph.

    Parameters are an array (depth, n_qubits, k) of angles in radians, as for the brickwork.

    **Arguments:**

    - `edges`: pairs (control, target) of different qubits, each pair of qubits once.
    - `depth`: at least 1, the product state.
    - `rotations`: `"ry-rz"` or `"ry"`, whose amplitudes are real.
    - `schedule`: `"colours"` or `"all"`, see the module's text.
    - `colours`: one per edge, counted from 0 without gaps; edges that share a qubit differ.

    **Raises:** `ValueError` for edges that are no pairs of different qubits or occur twice,
    colours that clash, an unknown name or a depth that is not positive.
    """

    edges: tuple[Edge, ...] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    rotations: str = eqx.field(static=True, default="ry-rz")
    schedule: str = eqx.field(static=True, default="colours")
    colours: tuple[int, ...] = eqx.field(static=True, default=())

    def __init__(
        self,
        edges: Sequence[Sequence[int]],
        depth: int,
        rotations: str = "ry-rz",
        *,
        schedule: str = "colours",
        colours: Sequence[int] | None = None,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}; depth 1 is the product state")
        if rotations not in ROTATIONS:
            raise ValueError(f"rotations must be one of {', '.join(ROTATIONS)}, got {rotations!r}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        self.edges = _checked(edges)
        self.depth, self.rotations, self.schedule = depth, rotations, schedule
        self.colours = _colouring(self.edges, colours)

    @property
    def n_colours(self) -> int:
        return max(self.colours, default=-1) + 1

    @property
    def least_qubits(self) -> int:
        """The smallest register that holds all edges."""
        return max((site for edge in self.edges for site in edge), default=0) + 1

    def layer(self, number: int) -> tuple[Edge, ...]:
        """The CX of layer `number`, counted from 1, in the order of time; those of layer 1 act on
        |0...0> and are left out."""
        if number == 1 or not self.edges:
            return ()
        chosen = zip(self.colours, self.edges, strict=True)
        if self.schedule == "colours":
            wanted = (number - 2) % self.n_colours
            return tuple(edge for colour, edge in chosen if colour == wanted)
        return tuple(edge for _, edge in sorted(chosen, key=lambda each: each[0]))

    def shape(self, n_qubits: int) -> tuple[int, int, int]:
        """The shape of the parameters for a register of `n_qubits`.

        **Raises:** `ValueError` if an edge leads out of the register.
        """
        if n_qubits < self.least_qubits:
            raise ValueError(
                f"the edges lead to qubit {self.least_qubits - 1}, the register has {n_qubits} "
                "qubits; build the graph for this register"
            )
        return (self.depth, n_qubits, ROTATIONS[self.rotations])

    def init(
        self,
        key: PRNGKeyArray,
        n_qubits: int,
        *,
        how: str = "near-uniform",
        scale: float = 0.1,
        dtype: np.dtype | type = np.float32,
    ) -> Angles:
        """Random start angles, see [`hypercircuit.Brickwork.init`][]."""
        return start_angles(key, self.shape(n_qubits), how, scale, dtype)

    def describe(self) -> str:
        """Depth, edges and schedule in a few words."""
        order = "one colour a layer" if self.schedule == "colours" else "all edges in every layer"
        return (
            f"graph of depth {self.depth} with {len(self.edges)} edges in {self.n_colours} "
            f"colours, {order}"
        )

    @staticmethod
    def path(n_qubits: int, depth: int, rotations: str = "ry-rz") -> Graph:
        """The chain 0-1-2-..: the brickwork."""
        return Graph(path_edges(range(n_qubits)), depth, rotations)

    @staticmethod
    def ring(n_qubits: int, depth: int, rotations: str = "ry-rz") -> Graph:
        """The chain and the edge from its end to its start; at least 3 qubits."""
        if n_qubits < 3:
            raise ValueError(f"a ring has at least 3 qubits, got {n_qubits}; use Graph.path")
        return Graph([*path_edges(range(n_qubits)), (n_qubits - 1, 0)], depth, rotations)

    @staticmethod
    def tree(n_qubits: int, depth: int, rotations: str = "ry-rz") -> Graph:
        """The binary tree: qubit i controls its children 2 i + 1 and 2 i + 2."""
        edges = [((i - 1) // 2, i) for i in range(1, n_qubits)]
        return Graph(edges, depth, rotations)

    @staticmethod
    def star(n_qubits: int, depth: int, rotations: str = "ry-rz", *, centre: int = 0) -> Graph:
        """Qubit `centre` controls all others, in every layer from the second one on."""
        if not 0 <= centre < n_qubits:
            raise ValueError(f"centre must be in 0..{n_qubits - 1}, got {centre}")
        edges = [(centre, i) for i in range(n_qubits) if i != centre]
        return Graph(edges, depth, rotations, schedule="all")

    @staticmethod
    def grid(
        height: int,
        width: int,
        depth: int,
        rotations: str = "ry-rz",
        *,
        bias: bool = False,
        copies: int = 1,
        start: int = 0,
        schedule: str = "colours",
    ) -> Graph:
        """Images of height x width pixels, row by row, each pixel tied to its neighbours.

        Colours 0 and 2 are the edges along rows that start in even and odd columns, 1 and 3 those
        along columns: depth 2 makes pairs, depth 3 squares of four pixels, depth 4 ties the
        squares of two rows of pixels together and depth 5 has used every edge.

        **Arguments:**

        - `bias`: each image is followed by one more qubit, tied to its last pixel.
        - `copies`: images after one another, such as one per output; nothing ties them together.
        - `start`: the first pixel's qubit.
        """
        if min(height, width, copies) < 1:
            raise ValueError(
                f"height, width and copies must be at least 1, got {height}, {width}, {copies}"
            )
        edges, colours = [], []
        for copy in range(copies):
            first = start + copy * (height * width + int(bias))
            for row in range(height):
                for column in range(width):
                    site = first + row * width + column
                    if column + 1 < width:
                        edges.append((site, site + 1))
                        colours.append(2 * (column % 2))
                    if row + 1 < height:
                        edges.append((site, site + width))
                        colours.append(2 * (row % 2) + 1)
            if bias:
                last = first + height * width - 1
                taken = {c for e, c in zip(edges, colours, strict=True) if last in e}
                edges.append((last, last + 1))
                colours.append(min(set(range(4)) - taken))
        names = {colour: number for number, colour in enumerate(sorted(set(colours)))}
        return Graph(
            edges, depth, rotations, schedule=schedule, colours=[names[each] for each in colours]
        )

    @staticmethod
    def centred(
        centres: Sequence[int],
        neurons: Sequence[Sequence[int]],
        depth: int,
        rotations: str = "ry-rz",
    ) -> Graph:
        """Architecture qubits entangled with every neuron, in every layer from the second one on.

        **Arguments:**

        - `centres`: sites of the architecture qubits, a chain; each controls the first site of
          every neuron.
        - `neurons`: the sites of every neuron, a chain each.
        """
        if not centres:
            raise ValueError("centres must hold at least one architecture qubit, got none")
        edges = [*path_edges(centres)]
        edges += [(centre, neuron[0]) for centre in centres for neuron in neurons]
        edges += [edge for neuron in neurons for edge in path_edges(neuron)]
        return Graph(edges, depth, rotations, schedule="all")


def path_edges(sites: Sequence[int]) -> list[Edge]:
    """The edges of a chain of qubits, each one the control of the next."""
    return [(int(a), int(b)) for a, b in itertools.pairwise(sites)]


def _checked(edges: Sequence[Sequence[int]]) -> tuple[Edge, ...]:
    found: dict[frozenset[int], None] = {}
    for edge in edges:
        whole = all(isinstance(site, numbers.Integral) for site in edge)
        if not whole or len(edge) != 2 or min(edge) < 0 or edge[0] == edge[1]:
            raise ValueError(
                f"an edge is a pair of two different qubits counted from 0, got {tuple(edge)}"
            )
        if frozenset(edge) in found:
            raise ValueError(f"each edge must be there once, got {tuple(edge)} again")
        found[frozenset(edge)] = None
    return tuple((int(edge[0]), int(edge[1])) for edge in edges)


def _colouring(edges: tuple[Edge, ...], colours: Sequence[int] | None) -> tuple[int, ...]:
    """The given colours, checked, or those that every edge in turn finds free."""
    taken: dict[int, set[int]] = {}
    chosen = []
    if colours is not None and (
        len(colours) != len(edges) or set(colours) != set(range(len(set(colours))))
    ):
        raise ValueError(
            f"colours must be one number per edge ({len(edges)}), from 0 without gaps, got "
            f"{len(colours)} of {sorted(set(colours))}"
        )
    for number, edge in enumerate(edges):
        used = taken.setdefault(edge[0], set()) | taken.setdefault(edge[1], set())
        if colours is None:
            colour = next(c for c in range(len(used) + 1) if c not in used)
        else:
            colour = int(colours[number])
        if colour in used:
            raise ValueError(
                f"edges of one colour must not share a qubit, got colour {colour} again at {edge}; "
                "leave colours out to have them chosen"
            )
        for site in edge:
            taken[site].add(colour)
        chosen.append(colour)
    return tuple(chosen)

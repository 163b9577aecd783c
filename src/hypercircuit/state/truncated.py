"""The matrix product state of a deep brickwork with a bounded bond dimension.

    layers 1 .. d0       exact     CX = sum_a P_a (x) X^a doubles a bond, all sites at once, no SVD
    layers d0 + 1 ..     scheme    CX, then truncation to max_bond: `Sweep` or `Parallel`
    at the end           sweep     right-canonical form from the right end, norm one

    max_bond 16:   layer     1   2   3   4   5   6   7   8   9 | 10  11  12 ..
                   bond      1   2   2   4   4   8   8  16  16 | 16  16  16 ..

A bond gets a CX in every second layer, and those of layer 1 act on |0> controls and do nothing:
d0 = 2 floor(log2 max_bond) + 1 layers need no truncation. Where the circuit has no more layers than
that, the state is the exact one, and so is its gradient, at product states and degenerate
singular values too. So it is at any depth in a chain so short that max_bond is that of any state of
it, 2^(n_qubits // 2): its amplitudes are written out, unless a cutoff may drop some. In longer ones
each truncating layer is one `lax.scan` over the pairs (or one batch), and the layers are a
`lax.scan` as well: neither the length of the chain nor the depth is compiled in.

The state is scaled at every site, so that its norm is one and nothing underflows at any length;
the gradient is that of the normalised state. It may be used for whatever does not depend on the
bases of the bonds (energies, probabilities, correlations, overlaps), not for single tensor entries.
Bond indices whose singular value is below the floor of `splitting.move` (relative eps^(2/3)) have
rows shorter than one, zero where they are not used at all.

Truncation to a rank above that of the state, as at product states with all angles multiples of
pi/2, is not differentiable: which of the empty bond directions are kept depends on the direction in
which the angles change. The gradient is finite there, but in truncating layers it counts as zero
what would enter through empty directions that the decomposition happened not to keep, and may
differ from the exact circuit's. Start near such a point, not at it.

LAPACK's threads hinder each other at these sizes: `train` and the commands on run folders limit
them to one; other calls do so inside `hypercircuit._threads.one_lapack_thread`.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact

from .._types import Angles, ChainTensors
from ..circuit import Brickwork, Truncated
from ..circuit.brickwork import rotation_matrices
from .amplitudes import with_cx, with_gates
from .canonical import right_canonical
from .chain import ChainMPS, chain_mps
from .interchange import mps_to_quimb
from .truncation import SCHEMES, TruncationScheme


class TruncatedTensors(eqx.Module):
    """A right-canonical matrix product state and what was thrown away on the way to it.

    **Attributes:**

    - `tensors`: (n_sites, bond, 2, bond) with axes (left, phys, right); both ends of the chain are
      bond index 0. sum_{s,r} A[l,s,r] conj A[l',s,r] is the identity on used bond indices, the
      rows of unused ones are zero. Real for circuits without Rz.
    - `discarded`: (depth, n_sites - 1), the share of the squared norm that layer d + 1 threw away
      at the bond between sites j and j + 1; a constant to the gradient.
    """

    tensors: ChainTensors
    discarded: Float[Array, "depth n_bonds"]

    @property
    def n_qubits(self) -> int:
        """Sites of the chain."""
        return self.tensors.shape[0]

    @property
    def bond(self) -> int:
        """The bond dimension that is stored."""
        return self.tensors.shape[1]

    @property
    def discarded_weight(self) -> Float[Array, ""]:
        """The sum of `discarded` over layers and bonds."""
        return jnp.sum(self.discarded)

    def site_tensors(self) -> list[jax.Array]:
        """The tensors one by one, the outer bonds of dimension 1."""
        sites = list(self.tensors)
        sites[0] = sites[0][:1]
        sites[-1] = sites[-1][:, :, :1]
        return sites

    def to_quimb(self) -> Any:
        """The state as quimb's `MatrixProductState`, sites in the same order."""
        return mps_to_quimb(self.site_tensors())


def truncated_tensors(
    circuit: Brickwork,
    params: Angles,
    *,
    max_bond: int,
    cutoff: float = 0.0,
    scheme: str | TruncationScheme = "sweep",
    gates: Inexact[Array, "depth n_qubits 2 2"] | None = None,
) -> TruncatedTensors:
    """The state that `circuit` prepares with `params`, no bond larger than `max_bond`.

    Differentiable in reverse mode, jit-compatible; see the module for the method. The bond
    dimension that is stored is the smallest of `max_bond`, the circuit's exact one and the
    chain's, 2^(n_qubits // 2).

    **Arguments:**

    - `max_bond`: at least 1.
    - `cutoff`: in a truncating layer, singular values are dropped as well whose square is below
      this share of the sum of squares; from 0 to less than 1.
    - `scheme`: `Sweep()` or `Parallel()`, or its name, `"sweep"` or `"parallel"`.
    - `gates`: other one-qubit unitaries in the places of the rotations.

    **Raises:** `ValueError` for other values, and for a circuit that is not a chain.
    """
    _check(circuit, params, max_bond, cutoff)
    chosen = _scheme(scheme)
    depth, n_sites, _ = params.shape
    bond = min(max_bond, circuit.max_bond, 2 ** (n_sites // 2))
    n_exact = Truncated(circuit, max_bond, float(cutoff)).exact_layers(n_sites)
    if gates is None:
        gates = rotation_matrices(params)
    if bond == 2 ** (n_sites // 2) and n_exact == depth:
        chain = _written_out(gates)
    else:
        chain = _exact_chain(gates[:n_exact], bond)
    discarded = jnp.zeros((depth, n_sites - 1), params.dtype)
    if n_exact < depth:
        chain, found = chosen.evolve(chain, gates[n_exact:], n_exact + 1, float(cutoff))
        discarded = discarded.at[n_exact:].set(lax.stop_gradient(found))
    return TruncatedTensors(right_canonical(chain), discarded)


def truncated_mps(
    ansatz: Truncated,
    params: Angles,
    gates: Inexact[Array, "depth n_qubits 2 2"] | None = None,
) -> ChainMPS:
    """The same as a state with its traced-out parts."""
    found = truncated_tensors(
        ansatz.circuit,
        params,
        max_bond=ansatz.max_bond,
        cutoff=ansatz.cutoff,
        scheme=ansatz.scheme,
        gates=gates,
    )
    return chain_mps(
        found.tensors,
        found.discarded,
        correlation_range=ansatz.correlation_range,
        isometric=False,
    )


def _exact_chain(gates: jax.Array, bond: int) -> jax.Array:
    """Layers that need no truncation, site by site: the chain in a gauge of its own.

    A control's new right index is its bit, a target's new left index says whether it is flipped.
    """
    depth, n_sites = gates.shape[:2]
    odd = n_sites % 2
    # An odd chain gets one more site while the pairs act; it is cut off afterwards.
    gates = jnp.pad(gates, ((0, 0), (0, odd), (0, 0), (0, 0)))
    even, uneven = gates[0, ::2, :, 0], gates[0, 1::2, :, 0]
    chains = [even[:, None, :, None], uneven[:, None, :, None]]
    for layer in range(2, depth + 1):
        control = layer % 2
        chains[control] = _as_control(chains[control])
        chains[1 - control] = _as_target(chains[1 - control])
        for parity in (0, 1):
            own = gates[layer - 1, parity::2]
            chains[parity] = jnp.einsum("nst,nltr->nlsr", own, chains[parity])
    found = [
        jnp.pad(one, ((0, 0), (0, bond - one.shape[1]), (0, 0), (0, bond - one.shape[3])))
        for one in chains
    ]
    chain = jnp.stack(found, 1).reshape(-1, bond, 2, bond)[:n_sites]
    # No control stands left of the chain; right of it, both bits of the last one are summed.
    last = jnp.zeros_like(chain[-1]).at[:, :, 0].set(chain[-1].sum(-1))
    return chain.at[-1].set(last)


def _written_out(gates: jax.Array) -> jax.Array:
    """All layers on all amplitudes, as a chain: its middle tensor holds them.

    The tensors to its left copy the bits before it into the bond, those to its right read theirs.
    """
    depth, n_sites = gates.shape[:2]
    half, dtype = n_sites // 2, gates.dtype

    def flipped(state: jax.Array, start: int) -> jax.Array:
        for control in range(start, n_sites - 1, 2):
            state = with_cx(state, n_sites, (control, control + 1))
        return state

    @jax.checkpoint
    def layer(state: jax.Array, given: tuple) -> tuple[jax.Array, None]:
        gate, start = given
        state = jnp.where(start == 1, flipped(state, 1), flipped(state, 0))
        return with_gates(state, gate), None

    state = jnp.zeros(2**n_sites, dtype).at[0].set(1)
    state, _ = lax.scan(layer, state, (gates, (1 + jnp.arange(depth)) % 2))
    bond = 2**half
    chain = jnp.zeros((n_sites, bond, 2, bond), dtype)
    for site in range(half):
        right = np.arange(2 ** (site + 1))
        chain = chain.at[site, right // 2, right % 2, right].set(1)
    for site in range(half + 1, n_sites):
        left, rest = np.arange(2 ** (n_sites - site)), 2 ** (n_sites - site - 1)
        chain = chain.at[site, left, left // rest, left % rest].set(1)
    middle = state.reshape(bond, 2, -1)
    return chain.at[half, :, :, : middle.shape[2]].set(middle)


def _as_control(tensors: jax.Array) -> jax.Array:
    n_sites, left, _, right = tensors.shape
    bits = jnp.eye(2, dtype=tensors.dtype)
    return jnp.einsum("nlsr,sa->nlsra", tensors, bits).reshape(n_sites, left, 2, 2 * right)


def _as_target(tensors: jax.Array) -> jax.Array:
    n_sites, left, _, right = tensors.shape
    both = jnp.stack([tensors, tensors[:, :, ::-1]], 2)
    return both.reshape(n_sites, 2 * left, 2, right)


def _scheme(scheme: str | TruncationScheme) -> TruncationScheme:
    if isinstance(scheme, TruncationScheme):
        return scheme
    if scheme not in SCHEMES:
        raise ValueError(
            f"scheme must be one of {', '.join(SCHEMES)} or a TruncationScheme, got {scheme!r}"
        )
    return SCHEMES[scheme]


def _check(circuit: Brickwork, params: jax.Array, max_bond: int, cutoff: float) -> None:
    if not isinstance(circuit, Brickwork):
        raise ValueError(
            f"only a chain (Brickwork) has a truncated matrix product state, got "
            f"{type(circuit).__name__}; use born(circuit, params), or Contraction() for energies"
        )
    if params.shape != circuit.shape(params.shape[1]):
        raise ValueError(
            f"params must have shape {circuit.shape(params.shape[1])} for {params.shape[1]} "
            f"qubits, got {params.shape}"
        )
    if max_bond < 1:
        raise ValueError(
            f"max_bond must be at least 1, got {max_bond}; the exact bond of this circuit is "
            f"{circuit.max_bond}"
        )
    if not 0 <= cutoff < 1:
        raise ValueError(
            f"cutoff must be from 0 to less than 1, got {cutoff}; it is a share of the squared norm"
        )

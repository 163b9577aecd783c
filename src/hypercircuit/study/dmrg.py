"""quimb's density matrix renormalisation group on a diagonal operator, where it fits.

White, Phys. Rev. Lett. 69, 2863 (1992); Schollwoeck, Ann. Phys. 326, 96 (2011). The operator is
handed over with a delta in its physical legs. What that can and cannot find beyond flips of pairs
of bits is said in `bit_search`; this is the general method beside it, as a baseline.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from jaxtyping import Float, UInt8

from ..hamiltonian.mpo import DiagonalMPO, compress, mpo_to_quimb
from ..state import mps_from_quimb, mps_to_quimb

#: quimb writes local operators out as matrices below this many rows.
_DENSE_ROWS = 800


@dataclasses.dataclass(frozen=True, eq=False)
class DMRGResult:
    """What quimb's DMRG ended with.

    **Attributes:**

    - `energy`: <psi|C|psi> of its state, in the operator's unit.
    - `bits`: (n_sites,) the most likely bitstring of that state, by a beam search.
    - `probability`: of that bitstring in the state.
    - `value`: the operator's entry there.
    - `history`: energy after every sweep (one direction each).
    - `converged`: whether the last sweep changed the energy by less than the tolerance.
    - `seconds`: wall time.
    """

    energy: float
    bits: UInt8[np.ndarray, " n_sites"]
    probability: float
    value: float
    history: Float[np.ndarray, " n_sweeps"]
    converged: bool
    seconds: float


def dmrg_bytes(mpo: DiagonalMPO, max_bond: int, *, sites: int = 2) -> int:
    """An estimate of the memory that `dmrg` needs, in bytes.

    Counted are the operator with both physical legs, the state, an environment (bond, operator's
    bond, bond) for every cut, and the local problem with its intermediate products.

    **Raises:** `ValueError` for a bond below 1 or another number of sites than 1 or 2.
    """
    _check(mpo, max_bond, sites)
    n_sites = mpo.n_sites
    cuts = np.minimum(np.arange(n_sites + 1), n_sites - np.arange(n_sites + 1))
    state = np.minimum(2.0 ** np.minimum(cuts, 60), max_bond)
    operator = np.asarray(mpo.bonds, np.float64)
    numbers = (4 * operator[:-1] * operator[1:]).sum()
    numbers += 2 * (2 * state[:-1] * state[1:]).sum()
    numbers += (state**2 * operator).sum()
    rows = 2**sites * state.max() ** 2
    local = 4 * rows * operator.max()
    if rows < _DENSE_ROWS:
        local += 3 * rows**2
    return int(8 * (numbers + local))


def dmrg(
    mpo: DiagonalMPO,
    max_bond: int = 8,
    *,
    sites: int = 2,
    max_sweeps: int = 20,
    tolerance: float = 1e-8,
    max_bytes: int = 2 * 2**30,
    beam: int = 32,
    seed: int = 0,
) -> DMRGResult:
    """Search for the ground state of the operator with quimb's `DMRG1` or `DMRG2`.

    The start is a random state of that bond dimension. quimb takes about 5 ms for a site
    and sweep at bonds of 16 and 15 ms at 32; for longer chains use `minimise`.

    **Arguments:**

    - `max_bond`: of the state.
    - `sites`: neighbouring tensors that are optimised together, 1 or 2.
    - `max_sweeps`: at most so many, one sweep being one direction.
    - `tolerance`: change of the energy in a sweep at which it ends, in the operator's unit.
    - `max_bytes`: refuse what needs more memory, by `dmrg_bytes`.
    - `beam`: width of the search for the most likely bitstring.
    - `seed`: of the start.

    **Raises:** `ValueError` for arguments out of range, fewer than 3 sites, or an operator that
    is too large.
    """
    needed = dmrg_bytes(mpo, max_bond, sites=sites)
    if needed > max_bytes:
        raise ValueError(
            f"DMRG at max_bond {max_bond} on {mpo.n_sites} sites of bond {mpo.max_bond} needs "
            f"about {needed / 2**30:.3g} GiB, more than max_bytes = {max_bytes / 2**30:.3g} GiB; "
            "lower max_bond, compress the operator or use minimise"
        )
    if mpo.n_sites < 3:
        raise ValueError(f"DMRG needs at least 3 sites, got {mpo.n_sites}; use minimise")
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance}")
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    from quimb.tensor import DMRG1, DMRG2

    begin = time.perf_counter()
    # A canonical form spreads the scale, so that no environment grows or vanishes.
    operator = mpo_to_quimb(compress(mpo).mpo)
    start = mps_to_quimb(_random_state(mpo.n_sites, max_bond, seed))
    solver = (DMRG1 if sites == 1 else DMRG2)(operator, bond_dims=max_bond, p0=start)
    solver.opts["local_eig_tol"] = 1e-8
    solver.opts["local_eig_ncv"] = None
    converged = solver.solve(tol=tolerance, max_sweeps=max_sweeps, sweep_sequence="RL")
    bits, probability = _most_likely(list(mps_from_quimb(solver.state)), beam)
    return DMRGResult(
        float(np.real(solver.energy)),
        bits,
        probability,
        float(mpo.values(bits[None])[0]),
        np.real(np.array(solver.energies)),
        bool(converged),
        time.perf_counter() - begin,
    )


def _check(mpo: DiagonalMPO, max_bond: int, sites: int) -> None:
    if max_bond < 1:
        raise ValueError(f"max_bond must be at least 1, got {max_bond}")
    if sites not in (1, 2):
        raise ValueError(f"sites must be 1 or 2, got {sites}")


def _random_state(n_sites: int, max_bond: int, seed: int) -> list[np.ndarray]:
    """A right-canonical state with random isometries, of norm 1."""
    rng = np.random.default_rng(seed)
    tensors: list[np.ndarray] = []
    right = 1
    for site in range(n_sites - 1, -1, -1):
        left = int(min(max_bond, 2 * right, 2 ** min(site, 30)))
        columns = np.linalg.qr(rng.normal(size=(2 * right, left)))[0]
        tensors.append(columns.T.reshape(left, 2, right))
        right = left
    return tensors[::-1]


def _most_likely(tensors: list[np.ndarray], width: int) -> tuple[np.ndarray, float]:
    """The likeliest bitstring that a beam search finds, and its probability.

    In a right-canonical state the squared length of a beginning's vector is its probability.
    """
    for site in range(len(tensors) - 1, 0, -1):
        left, phys, right = tensors[site].shape
        q, rest = np.linalg.qr(tensors[site].reshape(left, phys * right).T)
        tensors[site] = q.T.reshape(-1, phys, right)
        tensors[site - 1] = np.tensordot(tensors[site - 1], rest.T, axes=1)
    tensors[0] = tensors[0] / np.linalg.norm(tensors[0])
    vectors, log = np.ones((1, 1)), 0.0
    strings = np.zeros((1, 0), np.uint8)
    for tensor in tensors:
        grown = np.tensordot(vectors, tensor, axes=1).reshape(-1, tensor.shape[2])
        keep = np.argsort(-(np.abs(grown) ** 2).sum(1), kind="stable")[:width]
        strings = np.column_stack([strings[keep // 2], (keep % 2).astype(np.uint8)])
        scale = np.linalg.norm(grown[keep[0]])
        vectors, log = grown[keep] / scale, log + 2 * np.log(scale)
    return strings[0], float(np.exp(log))

"""Reading quimb's open chains as plain arrays, whatever the order of their axes and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def chain_arrays(network: Any, legs: Sequence[str], wanted: str) -> list[np.ndarray]:
    """The tensors of an open chain in site order, each with axes (left, *legs, right).

    The outer bonds, and those between sites that share no index, are of dimension 1.

    **Arguments:**

    - `network`: quimb's `MatrixProductState` or `MatrixProductOperator`.
    - `legs`: the names of its methods that name a site's physical indices, such as `site_ind`.
    - `wanted`: what has them, in words.

    **Raises:** `TypeError` for anything but a chain with these legs; `ValueError` for a periodic
    chain, one that skips sites or has several tensors at one, and for an index that leads
    elsewhere than to a neighbour.
    """
    if not all(hasattr(network, name) for name in ("L", "gen_sites_present", *legs)):
        raise TypeError(
            f"{wanted} of quimb is needed, got {type(network).__name__}; make one of arrays with "
            "its constructor, or of a dense array with from_dense"
        )
    n_sites = network.L
    present = tuple(network.gen_sites_present())
    if present != tuple(range(n_sites)):
        missing = sorted(set(range(n_sites)) - set(present))
        raise ValueError(f"the chain has no tensor at sites {missing} of its {n_sites}")
    if network.num_tensors != n_sites:
        raise ValueError(
            f"the chain has {network.num_tensors} tensors at {n_sites} sites; contract those of "
            "one site first"
        )
    if getattr(network, "cyclic", False):
        raise ValueError("the chain is periodic; an open one is needed, with outer bonds of 1")
    arrays = []
    inside = [set(network[site].inds) for site in range(n_sites)]
    for site in range(n_sites):
        tensor = network[site]
        physical = [getattr(network, leg)(site) for leg in legs]
        left = sorted(inside[site] & inside[site - 1]) if site else []
        right = sorted(inside[site] & inside[site + 1]) if site + 1 < n_sites else []
        strange = inside[site] ^ {*physical, *left, *right}
        if strange:
            raise ValueError(
                f"the tensor of site {site} has indices {sorted(tensor.inds)}; expected "
                f"{physical} and bonds to its neighbours"
            )
        array = np.asarray(tensor.transpose(*left, *physical, *right).data)
        sizes = [tensor.ind_size(leg) for leg in physical]
        left_size = int(np.prod([tensor.ind_size(bond) for bond in left], dtype=int))
        arrays.append(array.reshape(left_size, *sizes, -1))
    return arrays


def without_outer_bonds(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The tensors as quimb's constructors take them, the first and the last one without outer bond.

    **Raises:** `ValueError` unless the outer bonds are 1.
    """
    arrays = [np.asarray(tensor) for tensor in tensors]
    if arrays[0].shape[0] != 1 or arrays[-1].shape[-1] != 1:
        raise ValueError(
            f"the outer bonds must be 1, got {arrays[0].shape[0]} and {arrays[-1].shape[-1]}"
        )
    arrays[0] = arrays[0][0]
    arrays[-1] = arrays[-1][..., 0]
    return arrays

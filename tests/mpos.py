"""Diagonal operators for tests, and their entries by brute force."""

import itertools

import numpy as np

import oracles
from hypercircuit.hamiltonian.mpo import DiagonalMPO


def random_mpo(bonds: tuple[int, ...], *, seed: int) -> DiagonalMPO:
    """Normally distributed entries with a drift, so that no two sites or bits look alike."""
    rng = np.random.default_rng(seed)
    tensors = []
    for site, (left, right) in enumerate(itertools.pairwise(bonds)):
        tensor = rng.normal(size=(left, 2, right))
        tensor[:, 1] += 0.05 * (site + 1)
        tensors.append(tensor)
    return DiagonalMPO(tuple(tensors))


def capped_bonds(n_sites: int, max_bond: int) -> tuple[int, ...]:
    """Bonds as large as exact ones up to a limit."""
    return tuple(min(2 ** min(j, n_sites - j, 30), max_bond) for j in range(n_sites + 1))


def brute_force_diagonal(tensors: tuple[np.ndarray, ...]) -> np.ndarray:
    """The product of matrices of every bitstring by itself."""
    entries = []
    for bits in oracles.bits_table(len(tensors)).astype(int):
        product = np.eye(1)
        for tensor, bit in zip(tensors, bits, strict=True):
            product = product @ tensor[:, bit]
        entries.append(product[0, 0])
    return np.array(entries)


def weights_of(probabilities: np.ndarray | None, n_sites: int) -> np.ndarray:
    """The metric's probability of every bitstring; a bit is never more certain than 1 - 1e-6."""
    ones = (
        np.full(n_sites, 0.5) if probabilities is None else np.clip(probabilities, 1e-6, 1 - 1e-6)
    )
    bits = oracles.bits_table(n_sites)
    return np.where(bits == 1, ones, 1 - ones).prod(1)


def phase_sum(gains: np.ndarray, frequencies: np.ndarray, coefficients: np.ndarray) -> DiagonalMPO:
    """``sum_k coefficients[k] cos(frequencies[k] * gains @ bits)``, two bonds each."""
    n_sites, n_waves = len(gains), len(frequencies)
    tensors = []
    for site, gain in enumerate(gains):
        tensor = np.zeros((2 * n_waves, 2, 2 * n_waves))
        for wave, frequency in enumerate(frequencies):
            cos, sin = np.cos(frequency * gain), np.sin(frequency * gain)
            block = slice(2 * wave, 2 * wave + 2)
            tensor[block, 0, block] = np.eye(2)
            tensor[block, 1, block] = [[cos, sin], [-sin, cos]]
        if site == 0:
            start = np.zeros(2 * n_waves)
            start[::2] = coefficients
            tensor = np.tensordot(start[None], tensor, axes=1)
        if site == n_sites - 1:
            end = np.zeros((2 * n_waves, 1))
            end[::2] = 1
            tensor = np.tensordot(tensor, end, axes=1)
        tensors.append(tensor)
    return DiagonalMPO(tuple(tensors))

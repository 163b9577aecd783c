"""Diagonal matrix product operators: a function of a bitstring as a chain of small matrices.

    <w|C|w> = T_0[w_0] T_1[w_1] ... T_{N-1}[w_{N-1}],      T_j: (left, bit, right)

Distances between two of them are taken in the metric of a product distribution q over bits,

    |C|^2 = sum_w q(w) C(w)^2,      q(w) = prod_j q_j(w_j),

the uniform one being the Hilbert-Schmidt norm over 2^N. With the square roots of q multiplied into
the tensors this is the ordinary norm of a matrix product state, so that its canonical forms and
truncations are optimal in the metric, and errors of successive truncations add up in quadrature.

Vectors that are swept along the chain are scaled at every site and the logs of the scales summed,
so that nothing over- or underflows at any length.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ..._threads import one_lapack_thread

#: More entries than this are not written out.
MAX_QUBITS = 24
#: Probabilities of a metric are kept this far from 0 and 1: it must weigh every network.
MIN_PROBABILITY = 1e-6
_STATE_FLOOR = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalMPO:
    """A diagonal operator on a chain of qubits.

    **Attributes:**

    - `tensors`: one real array (left, 2, right) per site; the outer bonds are 1.

    **Raises:** `ValueError` if the bonds of neighbouring tensors differ, or for entries that are
    complex or not finite.
    """

    tensors: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ValueError("a DiagonalMPO needs at least one tensor, got none")
        right = 1
        for site, tensor in enumerate(self.tensors):
            if tensor.ndim != 3 or tensor.shape[1] != 2 or tensor.shape[0] != right:
                raise ValueError(
                    f"the tensor of site {site} must have axes (left, 2, right) with left={right}, "
                    f"got shape {tensor.shape}"
                )
            if np.iscomplexobj(tensor):
                raise ValueError(
                    f"the tensor of site {site} is complex ({tensor.dtype}); a DiagonalMPO is "
                    "real: take the real part, or turn the phases of its bonds away first"
                )
            if not np.isfinite(tensor).all():
                raise ValueError(
                    f"the tensor of site {site} has entries that are not finite numbers; scale "
                    "what it was made of, or look for NaN there"
                )
            right = tensor.shape[2]
        if right != 1:
            raise ValueError(f"the last tensor's right bond must be 1, got {right}")

    @property
    def n_sites(self) -> int:
        return len(self.tensors)

    @property
    def bonds(self) -> tuple[int, ...]:
        """The bond dimension at every cut, both ends included."""
        return (1, *(tensor.shape[2] for tensor in self.tensors))

    @property
    def max_bond(self) -> int:
        return max(self.bonds)

    @property
    def n_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def values(
        self, bits: Integer[np.ndarray, "n_networks n_sites"]
    ) -> Float[np.ndarray, " n_networks"]:
        """The operator's entries at bitstrings, in float64.

        **Raises:** `ValueError` unless every bit is 0 or 1, one column per site.
        """
        if bits.ndim != 2 or bits.shape[1] != self.n_sites:
            raise ValueError(
                f"bits must have one column per site ({self.n_sites}), got shape {bits.shape}"
            )
        if not ((bits == 0) | (bits == 1)).all():
            raise ValueError(
                f"bits must be 0 or 1, got values from {bits.min()} to {bits.max()}; a spin s of "
                "-1 or 1 is the bit (1 - s) / 2"
            )
        vectors = np.ones((len(bits), 1))
        logs = np.zeros(len(bits))
        for site, tensor in enumerate(self.tensors):
            ones = bits[:, site] == 1
            following = np.empty((len(bits), tensor.shape[2]))
            for bit, rows in enumerate((~ones, ones)):
                following[rows] = vectors[rows] @ tensor[:, bit].astype(np.float64)
            vectors, logs = scaled(following, logs)
        with np.errstate(over="ignore"):
            return vectors[:, 0] * np.exp(logs)

    def diagonal(self) -> Float[np.ndarray, " n_networks"]:
        """All 2^n_sites entries, site 0 most significant.

        **Raises:** `ValueError` above 24 sites.
        """
        if self.n_sites > MAX_QUBITS:
            raise ValueError(
                f"a diagonal of {self.n_sites} sites has 2^{self.n_sites} entries; at most "
                f"{MAX_QUBITS} sites are written out, use values(bits) instead"
            )
        entries = np.ones((1, 1))
        for tensor in self.tensors:
            entries = np.tensordot(entries, tensor.astype(np.float64), axes=1)
            entries = entries.reshape(-1, tensor.shape[2])
        return entries[:, 0]

    def norm(self, probabilities: Float[np.ndarray, " n_sites"] | None = None) -> float:
        """The root mean square over the metric's networks; uniform unless given."""
        value, log = overlap(self, self, probabilities)
        return float(np.sqrt(max(value, 0.0)) * np.exp(0.5 * log))

    def mean(self, probabilities: Float[np.ndarray, " n_sites"] | None = None) -> float:
        """The mean over a product distribution: `probabilities` that bits are 1, or uniform."""
        vector, log = np.ones((1, 1)), np.zeros(1)
        for tensor, weights in zip(
            self.tensors, metric_weights(probabilities, self.n_sites), strict=True
        ):
            vector = vector @ np.einsum("asb,s->ab", tensor.astype(np.float64), weights)
            vector, log = scaled(vector, log)
        return float(vector[0, 0] * np.exp(log[0]))

    def __add__(self, other: DiagonalMPO) -> DiagonalMPO:
        """The sum, of bond dimensions that add up; see `compressed`."""
        if other.n_sites != self.n_sites:
            raise ValueError(f"operators on {self.n_sites} and {other.n_sites} sites do not add up")
        tensors = []
        last = self.n_sites - 1
        for site, (a, b) in enumerate(zip(self.tensors, other.tensors, strict=True)):
            if last == 0:
                tensors.append(a + b)
            elif site == 0:
                tensors.append(np.concatenate([a, b], axis=2))
            elif site == last:
                tensors.append(np.concatenate([a, b], axis=0))
            else:
                shape = (a.shape[0] + b.shape[0], 2, a.shape[2] + b.shape[2])
                joined = np.zeros(shape, np.result_type(a, b))
                joined[: a.shape[0], :, : a.shape[2]] = a
                joined[a.shape[0] :, :, a.shape[2] :] = b
                tensors.append(joined)
        return DiagonalMPO(tuple(tensors))

    def __mul__(self, factor: float) -> DiagonalMPO:
        """The operator times a number."""
        return DiagonalMPO((self.tensors[0] * factor, *self.tensors[1:]))

    def astype(self, dtype: np.dtype | type) -> DiagonalMPO:
        """The same tensors in another precision."""
        return DiagonalMPO(tuple(tensor.astype(dtype) for tensor in self.tensors))

    def reversed(self) -> DiagonalMPO:
        """The operator on the chain read from its other end."""
        return DiagonalMPO(tuple(tensor.transpose(2, 1, 0) for tensor in self.tensors[::-1]))

    def singular_values(
        self, probabilities: Float[np.ndarray, " n_sites"] | None = None
    ) -> list[Float[np.ndarray, " bond"]]:
        """The operator's singular values at every inner cut, in the metric."""
        return compress(self, probabilities=probabilities).singular_values


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A truncated operator and what the truncation threw away.

    **Attributes:**

    - `mpo`: the operator, in float64.
    - `error`: distance to the operator before in the metric, a root mean square.
    - `discarded`: (n_sites - 1,) what every cut contributed to it; the squares add up.
    - `singular_values`: at every inner cut those that were kept.
    """

    mpo: DiagonalMPO
    error: float
    discarded: Float[np.ndarray, " cuts"]
    singular_values: list[np.ndarray]


@one_lapack_thread()
def compress(
    mpo: DiagonalMPO,
    *,
    max_bond: int | None = None,
    tolerance: float = 0.0,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
) -> Compressed:
    """Truncate singular values from right to left, after a sweep that orthogonalises.

    The rounding of I. V. Oseledets, SIAM J. Sci. Comput. 33, 2295 (2011), in the metric: at most
    sqrt(n_sites - 1) times the smallest error that an operator of these bonds can have.

    **Arguments:**

    - `max_bond`: largest bond kept; any, if left out.
    - `tolerance`: root mean square error that may be made in the metric, in the operator's unit,
      as far as `max_bond` allows; every cut may use an equal share of its square.
    - `probabilities`: that each bit is 1, the metric's product distribution; uniform if left out.

    **Raises:** `ValueError` for a `max_bond` that is no whole number from 1 on, a negative
    tolerance, probabilities that do not fit, or an operator whose norm is no float64.
    """
    check_truncation(max_bond, tolerance)
    n_sites = mpo.n_sites
    roots = np.sqrt(metric_weights(probabilities, n_sites))
    tensors = [
        tensor.astype(np.float64) * root[:, None]
        for tensor, root in zip(mpo.tensors, roots, strict=True)
    ]
    log = 0.0
    for site in range(n_sites - 1):
        left, _, right = tensors[site].shape
        q, rest = np.linalg.qr(tensors[site].reshape(left * 2, right))
        tensors[site] = q.reshape(left, 2, -1)
        scale = float(np.abs(rest).max()) or 1.0
        log += np.log(scale)
        tensors[site + 1] = np.tensordot(rest / scale, tensors[site + 1], axes=1)
    scale = float(np.abs(tensors[-1]).max())
    total = 1.0  # of the operator that is zero
    if scale:
        tensors[-1] = tensors[-1] / scale
        total = _representable(log + np.log(scale))
    share = tolerance / total / np.sqrt(max(n_sites - 1, 1))
    discarded = np.zeros(max(n_sites - 1, 0))
    kept_values: list[np.ndarray] = [np.zeros(0)] * max(n_sites - 1, 0)
    for site in range(n_sites - 1, 0, -1):
        left, _, right = tensors[site].shape
        u, values, v = _svd(tensors[site].reshape(left, 2 * right))
        keep, discarded[site - 1] = _truncated(values, share, max_bond)
        kept_values[site - 1] = values[:keep] * total
        tensors[site] = v[:keep].reshape(keep, 2, right)
        tensors[site - 1] = np.tensordot(tensors[site - 1], u[:, :keep] * values[:keep], axes=1)
    tensors[0] = tensors[0] * total
    plain = tuple(tensor / root[:, None] for tensor, root in zip(tensors, roots, strict=True))
    error = float(np.sqrt((discarded**2).sum()) * total)
    return Compressed(DiagonalMPO(plain), error, discarded * total, kept_values)


@one_lapack_thread()
def from_diagonal(
    entries: Float[np.ndarray, " n_networks"],
    *,
    max_bond: int | None = None,
    tolerance: float = 0.0,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
) -> Compressed:
    """The operator with the given 2^N entries, by a singular value decomposition at every cut."""
    check_truncation(max_bond, tolerance)
    n_sites = len(entries).bit_length() - 1
    if n_sites < 1 or len(entries) != 2**n_sites:
        raise ValueError(f"the number of entries must be a power of two, got {len(entries)}")
    roots = np.sqrt(metric_weights(probabilities, n_sites))
    weighted = entries.astype(np.float64)
    for site in range(n_sites):
        weighted = (weighted.reshape(2**site, 2, -1) * roots[site][:, None]).reshape(-1)
    share = tolerance / np.sqrt(max(n_sites - 1, 1))
    discarded = np.zeros(n_sites - 1)
    kept_values: list[np.ndarray] = []
    tensors = []
    rest = weighted.reshape(1, -1)
    for site in range(n_sites - 1):
        left = rest.shape[0]
        u, values, v = _svd(rest.reshape(left * 2, -1))
        keep, discarded[site] = _truncated(values, share, max_bond)
        kept_values.append(values[:keep])
        tensors.append(u[:, :keep].reshape(left, 2, keep) / roots[site][:, None])
        rest = values[:keep, None] * v[:keep]
    tensors.append(rest.reshape(-1, 2, 1) / roots[-1][:, None])
    error = float(np.sqrt((discarded**2).sum()))
    return Compressed(DiagonalMPO(tuple(tensors)), error, discarded, kept_values)


def identity(n_sites: int, value: float = 1.0) -> DiagonalMPO:
    """`value` for every bitstring."""
    tensors = [np.ones((1, 2, 1)) for _ in range(n_sites)]
    tensors[0] = tensors[0] * value
    return DiagonalMPO(tuple(tensors))


def additive(parts: Sequence[tuple[int, DiagonalMPO]], n_sites: int) -> DiagonalMPO:
    """The sum of operators on runs of neighbouring sites that do not overlap, as one operator.

    Two bonds more than the widest part carry what is left to come and what has been added up.

    **Arguments:**

    - `parts`: the first site and the operator of every run.
    """
    ordered = sorted(parts, key=lambda part: part[0])
    tensors: list[np.ndarray] = []
    site = 0

    def waiting(count: int) -> None:
        tensors.extend(np.broadcast_to(np.eye(2)[:, None], (2, 2, 2)) for _ in range(count))

    for start, part in ordered:
        if start < site or start + part.n_sites > n_sites:
            raise ValueError(
                f"runs must not overlap and lie in 0..{n_sites - 1}, got one at {start}"
            )
        waiting(start - site)
        last = part.n_sites - 1
        for number, tensor in enumerate(part.tensors):
            left = 2 + (tensor.shape[0] if number else 0)
            right = 2 + (tensor.shape[2] if number != last else 0)
            joined = np.zeros((left, 2, right), tensor.dtype)
            joined[0, :, 0] = joined[1, :, 1] = 1
            # Bond 0 waits for a part, bond 1 holds the sum of those that are through.
            rows = slice(2, None) if number else slice(0, 1)
            columns = slice(2, None) if number != last else slice(1, 2)
            joined[rows, :, columns] += tensor
            tensors.append(joined)
        site = start + part.n_sites
    waiting(n_sites - site)
    tensors[0] = tensors[0][:1]
    tensors[-1] = tensors[-1][:, :, 1:2]
    return DiagonalMPO(tuple(tensors))


def overlap(
    first: DiagonalMPO,
    second: DiagonalMPO,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
) -> tuple[float, float]:
    """``sum_w q(w) first(w) second(w)`` as a number and the log of its factor."""
    if first.n_sites != second.n_sites:
        raise ValueError(f"operators on {first.n_sites} and {second.n_sites} sites do not multiply")
    vector, log = np.ones((1, 1)), np.zeros(1)
    weights = metric_weights(probabilities, first.n_sites)
    for a, b, q in zip(first.tensors, second.tensors, weights, strict=True):
        half = np.tensordot(vector, b.astype(np.float64) * q[:, None], axes=1)
        vector = np.tensordot(a.astype(np.float64), half, axes=((0, 1), (0, 1)))
        scale = float(np.abs(vector).max()) or 1.0
        vector, log = vector / scale, log + np.log(scale)
    return float(vector[0, 0]), float(log[0])


def metric_weights(
    probabilities: Float[np.ndarray, " n_sites"] | None, n_sites: int
) -> Float[np.ndarray, "n_sites 2"]:
    """The metric's distribution of every bit, [of 0, of 1], kept away from 0 and 1.

    **Raises:** `ValueError` for another number of sites or values outside [0, 1].
    """
    if probabilities is None:
        return np.full((n_sites, 2), 0.5)
    ones = np.asarray(probabilities, np.float64)
    if ones.shape != (n_sites,):
        raise ValueError(
            f"a metric needs one probability per site ({n_sites}), got shape {ones.shape}"
        )
    if not ((ones >= 0) & (ones <= 1)).all():
        raise ValueError(
            f"probabilities must lie in 0..1, got values from {ones.min()} to {ones.max()}"
        )
    ones = np.clip(ones, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.stack([1 - ones, ones], axis=1)


def check_truncation(max_bond: int | None, tolerance: float) -> None:
    """What bounds a truncation.

    **Raises:** `ValueError` for a `max_bond` that is no whole number from 1 on, or a negative
    tolerance.
    """
    if max_bond is not None and not isinstance(max_bond, numbers.Integral):
        raise ValueError(f"max_bond must be a whole number, got {max_bond!r}")
    if max_bond is not None and max_bond < 1:
        raise ValueError(f"max_bond must be at least 1, got {max_bond}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")


def _representable(log: float) -> float:
    """exp(log), a float64 that is neither infinite nor zero.

    **Raises:** `ValueError` where there is none.
    """
    with np.errstate(over="ignore", under="ignore"):
        value = float(np.exp(log))
    if not 0 < value < np.inf:
        raise ValueError(
            f"the operator's norm is about 10^{log / np.log(10):.0f}, which no float64 holds; "
            "multiply it by a factor that brings its entries near 1"
        )
    return value


def around_state(ones: Float[np.ndarray, " n_sites"]) -> Float[np.ndarray, " n_sites"]:
    """The metric around a state in which bits are 1 with these probabilities.

    They are kept `_STATE_FLOOR` from 0 and 1, so that bits which are decided may change.
    """
    return np.clip(np.asarray(ones, np.float64), _STATE_FLOOR, 1 - _STATE_FLOOR)


def _truncated(values: np.ndarray, share: float, max_bond: int | None) -> tuple[int, float]:
    """How many singular values are kept, and the root of the sum of squares of the others.

    **Arguments:**

    - `share`: what the others may come to, as far as `max_bond` allows.
    """
    tails = np.sqrt(np.cumsum((values**2)[::-1])[::-1])
    rounding = 1e-15 * values[0] * len(values)
    keep = max(1, int((tails > max(share, rounding)).sum()))
    keep = min(keep, max_bond or keep)
    return keep, float(tails[keep]) if keep < len(values) else 0.0


def scaled(vectors: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows divided by their largest modulus, whose log is added to `logs`."""
    scale = np.abs(vectors).max(1)
    scale[scale == 0] = 1
    return vectors / scale[:, None], logs + np.log(scale)


def _svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LAPACK's divide and conquer, and its slower, steadier routine where that fails."""
    import scipy.linalg

    try:
        return np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        return scipy.linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd")

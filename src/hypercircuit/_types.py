"""Array types shared by several rooms: names, axes and meaning in one place."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jax import Array
from jaxtyping import Float, Inexact

#: Circuit parameters in radians: (layer, site, [Ry theta, Rz phi]), the last axis of length one
#: for circuits without Rz.
Angles = Float[Array, "depth n_qubits kinds"]
#: Exact MPS of two-site cells: (cell, left bond, first bit, second bit, right bond).
CellTensors = Inexact[Array, "n_cells bond 2 2 bond"]
#: A chain of equal MPS tensors: (site, left bond, bit, right bond), both ends at bond index 0.
ChainTensors = Inexact[Array, "n_sites bond 2 bond"]
#: Maps on the doubled bond, one per cell and pair of bits (first bit most significant).
CellMaps = Float[Array, "n_cells 4 doubled doubled"]
#: Vectors on the doubled bond at every cut between cells, both ends included.
CutVectors = Float[Array, "n_cuts doubled"]
#: An array that the host plans and the device reads: either kind.
if TYPE_CHECKING:
    AnyArray: TypeAlias = Any
else:
    AnyArray = Array | np.ndarray

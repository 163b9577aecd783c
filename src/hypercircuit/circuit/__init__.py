"""Hypercircuits: parameterised circuits on the register."""

from typing import TypeAlias

from .brickwork import Brickwork as Brickwork
from .export import save_qasm as save_qasm, to_qasm as to_qasm
from .free_mps import FreeMPS as FreeMPS
from .graph import Graph as Graph
from .noise import Noise as Noise, Noisy as Noisy
from .truncated import Truncated as Truncated

#: Chains whose state is held exactly.
ExactChain: TypeAlias = Brickwork | Noisy
#: What makes a matrix product state of parameters.
Chain: TypeAlias = ExactChain | Truncated | FreeMPS
#: What makes a state of parameters.
Ansatz: TypeAlias = Chain | Graph

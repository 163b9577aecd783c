"""Hypercircuits: parameterised circuits on the register."""

from typing import TypeAlias

from .brickwork import Brickwork as Brickwork
from .free_mps import FreeMPS as FreeMPS
from .graph import Graph as Graph
from .truncated import Truncated as Truncated

#: What makes a matrix product state of parameters.
Chain: TypeAlias = Brickwork | Truncated | FreeMPS
#: What makes a state of parameters.
Ansatz: TypeAlias = Chain | Graph

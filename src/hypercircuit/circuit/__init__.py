"""Hypercircuits: parameterised circuits on the register."""

from .brickwork import Brickwork as Brickwork
from .graph import Graph as Graph

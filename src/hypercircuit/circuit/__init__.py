"""Hypercircuits: parameterised circuits on the register."""

from .brickwork import Brickwork as Brickwork
from .export import save_qasm as save_qasm, to_qasm as to_qasm
from .graph import Graph as Graph
from .noise import Chain as Chain, Noise as Noise, Noisy as Noisy

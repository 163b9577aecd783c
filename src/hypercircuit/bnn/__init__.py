"""What a network is: layers, encodings, the register and the exact forward pass."""

from .encoding import Encoding as Encoding
from .network import Dense as Dense, Layer as Layer, Network as Network
from .register import Register as Register

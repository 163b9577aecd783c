"""What a network is: layers, activations, encodings, choices, the register, the forward pass."""

from .activation import ACTIVATIONS as ACTIVATIONS
from .choice import (
    PUBLISHED_ENCODINGS as PUBLISHED_ENCODINGS,
    Choice as Choice,
    Option as Option,
    activation_choice as activation_choice,
    choice_from_dict as choice_from_dict,
    encoding_choice as encoding_choice,
    neuron_gates as neuron_gates,
    scale_choice as scale_choice,
    skip_choice as skip_choice,
)
from .encoding import Encoding as Encoding
from .export import (
    save_network as save_network,
    save_onnx as save_onnx,
    to_onnx as to_onnx,
)
from .forward import Layer as Layer, Parameters as Parameters
from .network import Dense as Dense, Network as Network
from .register import Blocks as Blocks, Register as Register

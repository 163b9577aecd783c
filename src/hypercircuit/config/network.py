"""The network that a configuration's section stands for, once its inputs and outputs are known."""

import itertools

from ..bnn import Dense, Encoding, Network, choice_from_dict
from .sections import NetworkConfig
from .values import ConfigError


def make_network(settings: NetworkConfig, n_inputs: int, n_outputs: int) -> Network:
    """Build the network.

    Raises:
        ConfigError: layers, order, activations or choices contradict each other.
    """
    encoding = Encoding(*settings.encoding)
    sizes = (n_inputs, *settings.hidden, n_outputs)
    layers = tuple(
        Dense(before, after, bias=settings.bias, encoding=encoding)
        for before, after in itertools.pairwise(sizes)
    )
    try:
        return Network(
            layers,
            activation=settings.activation,
            logit_scale=settings.logit_scale,
            hidden_scale=settings.hidden_scale,
            skip=settings.skip,
            choices=tuple(choice_from_dict(values) for values in settings.choices),
            order=settings.order,
        )
    except ValueError as error:
        raise ConfigError(f"[network]: {error}") from error

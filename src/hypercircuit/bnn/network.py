"""Binary networks as classical objects: layers, architecture choices, the exact forward pass.

A network holds no weights: those are bits, one qubit each, and so is every architecture choice.
With layers l = 0 .. L-1, inputs a_{-1} = x, weights and biases in {low, high} of their encoding,

    z_l = W_l a_{l-1} + b_l,        a_l = gate * activation(hidden_scale * z_l),    l < L-1
    logits = logit_scale * (z_{L-1} + skip * V x).
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from .activation import check_activation, namespace
from .choice import Choice, NeuronSetting, Option, neuron_settings
from .encoding import Encoding
from .forward import Layer, Parameters, forward
from .register import ORDERS, Register, RegisterBuilder, reverse

AUTOMATIC = "auto"


@dataclasses.dataclass(frozen=True)
class Dense:
    """One dense layer of bits.

    **Arguments:**

    - `n_inputs`, `n_outputs`: positive sizes.
    - `bias`: whether every output has a bias bit (an input that is always 1).
    - `encoding`: what bits 0 and 1 stand for, weights and biases alike.
    """

    n_inputs: int
    n_outputs: int
    bias: bool = True
    encoding: Encoding = dataclasses.field(default_factory=Encoding)

    def __post_init__(self) -> None:
        for name in ("n_inputs", "n_outputs"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"Dense.{name} must be at least 1, got {value}")

    @property
    def fan_in(self) -> int:
        """Bits per output: the inputs' weights and, if there is one, the bias."""
        return self.n_inputs + self.bias

    @property
    def n_bits(self) -> int:
        return self.n_outputs * self.fan_in


@dataclasses.dataclass(frozen=True)
class Network:
    """A binary network, its architecture choices, and the order of its bits on the qubit chain.

    **Arguments:**

    - `layers`: dense layers, each as wide as the next one's inputs; one layer is a linear network.
    - `activation`: of all hidden neurons, or one per hidden layer, unless a choice sets it.
    - `logit_scale`: positive factor on the outputs (logits in nats when the loss is a
      cross-entropy).
    - `hidden_scale`: positive factor on the hidden pre-activations.
    - `skip`: a further layer of weights from the inputs straight to the outputs, in the last
      layer's encoding.
    - `choices`: architecture choices, each with qubits of its own.
    - `order`: the register's order, see [`hypercircuit.Register`][]; `"auto"` is `"neuron"` with
      one hidden layer and `"class"` otherwise.

    **Raises:** `ValueError` naming the argument at fault.
    """

    layers: tuple[Dense, ...]
    activation: str | tuple[str, ...] = "sign"
    logit_scale: float = 0.3
    hidden_scale: float = 1.0
    skip: bool = False
    choices: tuple[Choice, ...] = ()
    order: str = AUTOMATIC
    register: Register = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "register", _build_register(self))

    @property
    def n_qubits(self) -> int:
        return self.register.n_qubits

    @property
    def n_inputs(self) -> int:
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].n_outputs

    @property
    def n_hidden(self) -> int:
        """The number of hidden layers."""
        return len(self.layers) - 1

    @property
    def activations(self) -> tuple[str, ...]:
        """The activation of every hidden layer, where no choice sets it."""
        if isinstance(self.activation, str):
            return (self.activation,) * self.n_hidden
        return self.activation

    @property
    def has_skip(self) -> bool:
        """Whether there are weights from the inputs straight to the outputs."""
        return self.skip or any(option.skip for each in self.choices for option in each.options)

    def decode(self, bits: Integer[Any, "n_networks n_qubits"]) -> Parameters:
        """What bitstrings (site 0 first; NumPy or JAX) stand for."""
        if bits.shape[-1] != self.n_qubits:
            raise ValueError(
                f"bits must have one column per qubit ({self.n_qubits}), got shape {bits.shape}"
            )
        return _decode(self, bits)

    def logits(
        self,
        bits: Integer[Any, "n_networks n_qubits"],
        x: Float[Any, "n_examples n_inputs"],
        *,
        step: float | None = None,
    ) -> Float[Any, "n_networks n_examples n_outputs"]:
        """The exact classical forward pass of a batch of networks on a batch of examples.

        **Arguments:**

        - `step`: the inputs' lattice, if they have one (`Dataset.step`): first-layer sums are then
          taken in whole steps, so that ties at zero are free of rounding.
        """
        if x.shape[-1] != self.n_inputs:
            raise ValueError(
                f"x must have one column per input ({self.n_inputs}), got shape {x.shape}"
            )
        return forward(self.decode(bits), x, step=step)

    def sectors(self) -> Iterator[tuple[tuple[int, ...], Network]]:
        """Every setting of the network's and layers' choices: their bits, and what is left.

        The bits belong to the sites `global_sites`. A network that is left has the same chain, in
        which those sites no longer play a role.
        """
        chosen = [each for each in self.choices if each.scope != "neuron"]
        for codes in itertools.product(*(range(2**each.n_bits) for each in chosen)):
            bits = [
                code >> (each.n_bits - 1 - bit) & 1
                for each, code in zip(chosen, codes, strict=True)
                for bit in range(each.n_bits)
            ]
            options = [each.by_code[code] for each, code in zip(chosen, codes, strict=True)]
            yield tuple(bits), _settle(self, list(zip(chosen, options, strict=True)))

    def neuron_settings(self, layer: int) -> list[NeuronSetting]:
        """What every code of the own choices of a hidden neuron of `layer` stands for.

        The bits of a neuron's choices are one number, the first choice's most significant.
        """
        own = [each for each in self.choices if each.scope == "neuron" and each.layer == layer]
        encoding = self.layers[layer].encoding
        return neuron_settings(own, NeuronSetting(self.activations[layer], encoding, True))

    @property
    def global_sites(self) -> tuple[int, ...]:
        """The sites of the choices of scope network and layer, choice by choice."""
        return tuple(
            int(site)
            for choice, sites in zip(self.choices, self.register.choices, strict=True)
            if choice.scope != "neuron"
            for site in sites.ravel()
        )


def _check(network: Network) -> None:
    layers = network.layers
    if not layers:
        raise ValueError("layers must hold at least one Dense layer, got none")
    for number, (before, after) in enumerate(itertools.pairwise(layers)):
        if before.n_outputs != after.n_inputs:
            raise ValueError(
                f"layer {number} has {before.n_outputs} outputs but layer {number + 1} "
                f"{after.n_inputs} inputs; they must agree"
            )
    given = network.activation
    for name in (given,) if isinstance(given, str) else given:
        check_activation(name)
    if len(network.activations) != network.n_hidden:
        raise ValueError(
            f"activation needs one name or one per hidden layer ({network.n_hidden}), got {given}"
        )
    for name in ("logit_scale", "hidden_scale"):
        value = getattr(network, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive finite number, got {value}")
    known = (*ORDERS, AUTOMATIC)
    if network.order not in known:
        near = difflib.get_close_matches(network.order, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"order must be one of {', '.join(known)}, got {network.order!r}; "
            f"did you mean {near!r}?"
        )
    if network.order.startswith("neuron") and len(layers) != 2:
        raise ValueError(
            f"order {network.order!r} is for networks with one hidden layer, "
            f"got {len(layers) - 1}; use 'class'"
        )
    if network.has_skip and len(layers) == 1:
        raise ValueError("skip needs a hidden layer: a linear network is a skip connection already")
    _check_choices(network)


def _check_choices(network: Network) -> None:
    names = [choice.name for choice in network.choices]
    set_before: set[tuple[str, int]] = set()
    for choice in network.choices:
        if names.count(choice.name) > 1:
            raise ValueError(f"choices need different names, got {choice.name!r} twice")
        codes_only = choice.settings == ("encoding",)
        whole = codes_only and choice.scope != "neuron"
        n_layers = len(network.layers) if whole else network.n_hidden
        if choice.scope != "network" and not 0 <= choice.layer < n_layers:
            instead = (
                "; outputs have no choices of their own, a layer's encoding has scope 'layer'"
                if codes_only and choice.scope == "neuron"
                else ""
            )
            raise ValueError(
                f"choice {choice.name!r}: layer must be in 0..{n_layers - 1}, "
                f"got {choice.layer}{instead}"
                if n_layers
                else f"choice {choice.name!r} has scope {choice.scope!r}, "
                f"but the network has no hidden layer{instead}"
            )
        for setting in choice.settings:
            if setting in ("activation", "hidden_scale", "skip") and not network.n_hidden:
                raise ValueError(
                    f"choice {choice.name!r} sets {setting}, but the network has no hidden layer"
                )
            everywhere = choice.scope == "network"
            layers = range(len(network.layers)) if everywhere else (choice.layer,)
            for layer in layers:
                if (setting, layer) in set_before:
                    raise ValueError(
                        f"{setting} of layer {layer} is set by two choices, "
                        f"the second is {choice.name!r}; leave one out"
                    )
                set_before.add((setting, layer))


def _build_register(network: Network) -> Register:
    order = network.order
    if order == AUTOMATIC:
        order = "neuron" if len(network.layers) == 2 else "class"
    build = RegisterBuilder()
    layers = network.layers
    weights = [np.zeros((each.n_outputs, each.fan_in), int) for each in layers]
    choices: list[np.ndarray] = []
    for choice in network.choices:
        copies = layers[choice.layer].n_outputs if choice.scope == "neuron" else 1
        choices.append(np.zeros((copies, choice.n_bits), int))
        if choice.scope != "neuron":
            choices[-1][:] = build.take(1, choice.n_bits)

    def own_choices(layer: int, unit: int) -> None:
        for choice, sites in zip(network.choices, choices, strict=True):
            if choice.scope == "neuron" and choice.layer == layer:
                sites[unit] = build.take(choice.n_bits)

    if order.startswith("neuron"):
        for unit in range(layers[0].n_outputs):
            weights[0][unit] = build.take(layers[0].fan_in)
            own_choices(0, unit)
            weights[1][:, unit] = build.take(layers[1].n_outputs)
        if layers[1].bias:
            weights[1][:, -1] = build.take(layers[1].n_outputs)
    else:
        for layer, sites in enumerate(weights):
            for unit in range(len(sites)):
                sites[unit] = build.take(layers[layer].fan_in)
                own_choices(layer, unit)
    skip = build.take(network.n_outputs, network.n_inputs) if network.has_skip else None
    register = Register(
        build.n_qubits,
        tuple(weights),
        tuple(each.bias for each in layers),
        tuple(choices),
        tuple(choice.name for choice in network.choices),
        skip,
    )
    return reverse(register) if order.endswith("-reversed") else register


def _settle(network: Network, chosen: list[tuple[Choice, Option]]) -> Network:
    """The network with these choices made, on the same chain."""
    layers = list(network.layers)
    activations = list(network.activations)
    changes: dict[str, Any] = {}
    left = [each for each in network.choices if each.scope == "neuron"]
    for choice, option in chosen:
        if option.encoding is not None:
            numbers = range(len(layers)) if choice.scope == "network" else (choice.layer,)
            for number in numbers:
                layers[number] = dataclasses.replace(layers[number], encoding=option.encoding)
        if option.activation is not None:
            hidden = range(network.n_hidden) if choice.scope == "network" else (choice.layer,)
            for number in hidden:
                activations[number] = option.activation
        for name in ("logit_scale", "hidden_scale", "skip"):
            if getattr(option, name) is not None:
                changes[name] = getattr(option, name)
    settled = dataclasses.replace(
        network,
        layers=tuple(layers),
        activation=tuple(activations),
        choices=tuple(left),
        **changes,
    )
    register = network.register
    kept = [
        (sites, name)
        for choice, sites, name in zip(
            network.choices, register.choices, register.choice_names, strict=True
        )
        if choice.scope == "neuron"
    ]
    object.__setattr__(
        settled,
        "register",
        dataclasses.replace(
            register,
            choices=tuple(sites for sites, _ in kept),
            choice_names=tuple(name for _, name in kept),
            skip=register.skip if settled.skip else None,
        ),
    )
    return settled


def _decode(network: Network, bits: Any) -> Parameters:
    xp = namespace(bits)
    register = network.register
    options = [
        (choice, _codes(xp, bits, sites))
        for choice, sites in zip(network.choices, register.choices, strict=True)
    ]

    def setting(name: str, layer: int | None, default: Any, values: Any) -> Any:
        """One value per network (and neuron): `default`, unless a choice sets it.

        `values` turns an option's value into a number.
        """
        for choice, codes in options:
            if name in choice.settings and (choice.scope == "network" or choice.layer == layer):
                table = np.array([values(getattr(each, name)) for each in choice.by_code])
                return xp.asarray(table)[codes]
        return xp.full((1, 1), values(default))

    layers = []
    for number, (dense, sites) in enumerate(zip(network.layers, register.weights, strict=True)):
        low = setting("encoding", number, dense.encoding, lambda e: float(e.low))
        high = setting("encoding", number, dense.encoding, lambda e: float(e.high))
        table = xp.where(bits[:, sites] == 0, low[:, :, None], high[:, :, None])
        layers.append(Layer(table[..., :-1], table[..., -1]) if dense.bias else Layer(table, None))
    skip = None
    if register.skip is not None:
        present = setting("skip", None, network.skip, float)
        table = xp.where(bits[:, register.skip] == 0, low[:, :, None], high[:, :, None])
        skip = table * present[:, :, None]
    names = _activations(network)
    hidden = range(network.n_hidden)
    return Parameters(
        tuple(layers),
        names,
        tuple(
            setting("activation", each, network.activations[each], names.index) for each in hidden
        ),
        tuple(setting("gate", each, True, float) for each in hidden),
        setting("hidden_scale", None, network.hidden_scale, float),
        setting("logit_scale", None, network.logit_scale, float),
        skip,
    )


def _activations(network: Network) -> tuple[str, ...]:
    """All functions that hidden neurons can have, the network's own first."""
    options = [option.activation for choice in network.choices for option in choice.options]
    names = [*network.activations, *(name for name in options if name is not None)]
    return tuple(dict.fromkeys(names))


def _codes(xp: Any, bits: Any, sites: np.ndarray) -> Any:
    """The code of every copy of a choice, (networks, copies)."""
    powers = 2 ** np.arange(sites.shape[1])[::-1]
    return (bits[:, sites].astype(xp.int32) * powers).sum(-1)

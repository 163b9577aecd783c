"""Architecture choices: lists of options that qubits select from.

A choice of m options owns ceil(log2 m) qubits, the first one most significant. Codes beyond the
list start again at its beginning (code c is option c mod m), so every bitstring is a network; with
three options, option 0 has two of the four codes.

    scope       copies                       may set
    network     one                          activation, encoding, scales, skip
    layer       one, for `layer`             activation, encoding
    neuron      one a neuron of `layer`      activation, encoding, gate

A hidden neuron's own encoding governs its incoming weights and its bias. Its outgoing weights
belong to the next layer and keep that layer's encoding (in a deeper network, the next neurons'
own). Outputs have no choices of their own. With a hidden layer an output's weights lie scattered
over the neurons; in a linear network every energy takes the outputs' blocks for runs of weights
alone, with one range of logits and one list of Fourier sums for all of them. The encoding of the
last layer as a whole is a choice of scope `layer`, which costs one sector per setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .activation import check_activation
from .encoding import Encoding

SCOPES = {
    "network": ("activation", "encoding", "logit_scale", "hidden_scale", "skip"),
    "layer": ("activation", "encoding"),
    "neuron": ("activation", "encoding", "gate"),
}


@dataclasses.dataclass(frozen=True)
class Option:
    """What one option of a choice sets; what is None stays as the network has it.

    **Arguments:**

    - `activation`: a hidden neuron's function.
    - `encoding`: the weight values.
    - `logit_scale`, `hidden_scale`: positive factors on outputs and on hidden pre-activations.
    - `skip`: whether the inputs are also connected to the outputs.
    - `gate`: whether a hidden neuron is there at all.

    **Raises:** `ValueError` for an option that sets nothing, an unknown activation or a scale that
    is not positive.
    """

    activation: str | None = None
    encoding: Encoding | None = None
    logit_scale: float | None = None
    hidden_scale: float | None = None
    skip: bool | None = None
    gate: bool | None = None

    def __post_init__(self) -> None:
        if not self.settings:
            raise ValueError("an Option must set something, for example Option(activation='relu')")
        if self.activation is not None:
            check_activation(self.activation)
        for name in ("logit_scale", "hidden_scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive finite number, got {value}")

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of what this option sets."""
        names = (field.name for field in dataclasses.fields(self))
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def label(self) -> str:
        """The option in a few words, for reports."""
        words = []
        for name in self.settings:
            value = getattr(self, name)
            if isinstance(value, bool):
                words.append(f"{name} {'on' if value else 'off'}")
            elif isinstance(value, Encoding):
                words.append(f"{{{value.low:g}, {value.high:g}}}")
            elif isinstance(value, (int, float)):
                words.append(f"{name} {value:g}")
            else:
                words.append(str(value))
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A list of options and the qubits that select one of them.

    **Arguments:**

    - `name`: for reports; unique in a network.
    - `options`: at least two, all of which set the same things.
    - `scope`: `"network"`, `"layer"` or `"neuron"`, see the module's text.
    - `layer`: the layer, counted from 0, of scopes `"layer"` and `"neuron"`.

    **Raises:** `ValueError` naming the argument at fault.
    """

    name: str
    options: tuple[Option, ...]
    scope: str = "network"
    layer: int = 0

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {self.scope!r}")
        if len(self.options) < 2:
            raise ValueError(
                f"choice {self.name!r} needs at least two options, got {len(self.options)}; "
                "with one there is nothing to choose"
            )
        for option in self.options:
            if option.settings != self.settings:
                raise ValueError(
                    f"all options of choice {self.name!r} must set the same things, got "
                    f"{', '.join(self.settings)} and {', '.join(option.settings)}"
                )
        for setting in self.settings:
            if setting not in SCOPES[self.scope]:
                fits = [scope for scope, names in SCOPES.items() if setting in names]
                raise ValueError(
                    f"choice {self.name!r}: {setting} cannot have scope {self.scope!r}; "
                    f"it can have {', '.join(fits)}"
                )

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of what the options set."""
        return self.options[0].settings

    @property
    def n_bits(self) -> int:
        """Qubits per copy."""
        return (len(self.options) - 1).bit_length()

    @property
    def by_code(self) -> tuple[Option, ...]:
        """The option of every code 0 .. 2^n_bits - 1."""
        return tuple(self.options[code % len(self.options)] for code in range(2**self.n_bits))


class NeuronSetting(NamedTuple):
    """What one setting of a hidden neuron's own choices makes of it.

    **Attributes:**

    - `activation`: its function.
    - `encoding`: of its incoming weights and bias.
    - `gate`: whether it is there at all.
    """

    activation: str
    encoding: Encoding
    gate: bool

    def settled(self, option: Option) -> NeuronSetting:
        """The same with what an option sets."""
        set_here = {name: getattr(option, name) for name in option.settings}
        return self._replace(**set_here)


def neuron_settings(own: Sequence[Choice], default: NeuronSetting) -> list[NeuronSetting]:
    """What every code of a neuron's own choices stands for, the first choice most significant."""
    settings = []
    for options in itertools.product(*(choice.by_code for choice in own)):
        setting = default
        for option in options:
            setting = setting.settled(option)
        settings.append(setting)
    return settings


def activation_choice(
    names: Sequence[str], *, scope: str = "network", layer: int = 0, name: str = "activation"
) -> Choice:
    """Choose the hidden neurons' function."""
    return Choice(name, tuple(Option(activation=each) for each in names), scope, layer)


def encoding_choice(
    encodings: Sequence[Encoding], *, scope: str = "network", layer: int = 0, name: str = "encoding"
) -> Choice:
    """Choose the weight values, of all layers, of one, or of every hidden neuron of one.

    With scope `"neuron"` each hidden neuron chooses for its incoming weights and its bias.
    """
    return Choice(name, tuple(Option(encoding=each) for each in encodings), scope, layer)


def neuron_gates(*, layer: int = 0, name: str = "gate") -> Choice:
    """Switch every neuron of a hidden layer off (bit 0) or on (bit 1), and so choose its width."""
    return Choice(name, (Option(gate=False), Option(gate=True)), "neuron", layer)


def skip_choice(*, name: str = "skip") -> Choice:
    """Switch a direct connection from the inputs to the outputs off (bit 0) or on (bit 1)."""
    return Choice(name, (Option(skip=False), Option(skip=True)))


def scale_choice(scales: Sequence[float], *, name: str = "logit scale") -> Choice:
    """Choose the factor on the outputs."""
    return Choice(name, tuple(Option(logit_scale=float(each)) for each in scales))


def choice_from_dict(values: Mapping[str, Any]) -> Choice:
    """A choice from plain values, as configuration files hold them.

    **Arguments:**

    - `values`: `set`, what the options set (`"activation"`, `"encoding"`, `"logit_scale"`,
      `"hidden_scale"`, `"gate"` or `"skip"`), and `options`, a list of its values (an encoding is
      a pair of numbers; gate and skip need no list). Without `set` every option is a table of
      such settings. Further `name`, `scope` and `layer`, as in [`hypercircuit.Choice`][].

    **Raises:** `ValueError` naming the entry at fault.
    """
    known = ("name", "set", "options", "scope", "layer")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"a choice has no entry {key!r}; did you mean {near!r}?")
    setting = values.get("set")
    settings = [field.name for field in dataclasses.fields(Option)]
    if setting is not None and setting not in settings:
        near = difflib.get_close_matches(str(setting), settings, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"set must be one of {', '.join(settings)}, got {setting!r}; did you mean {near!r}?"
        )
    switch = setting in ("gate", "skip")
    listed = values.get("options", [False, True] if switch else None)
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"options must be a list of two or more options, got {listed!r}")
    options = tuple(_option({setting: each} if setting is not None else each) for each in listed)
    if len(set(options)) < len(options):
        raise ValueError(f"options must differ from one another, got {listed!r}")
    scope = values.get("scope", "neuron" if setting == "gate" else "network")
    layer = values.get("layer", 0)
    if not isinstance(scope, str):
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise ValueError(f"layer must be an integer, got {layer!r}")
    name = values.get("name", setting or "architecture")
    return Choice(str(name), options, scope, layer)


def _option(values: Any) -> Option:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"an option must be a table such as {{activation = 'relu'}}, got {values!r}; "
            "or name what the options set: set = 'activation'"
        )
    known = [field.name for field in dataclasses.fields(Option)]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"an option cannot set {key!r}; did you mean {near!r}?")
        if key == "encoding":
            if not isinstance(value, Sequence) or len(value) != 2 or isinstance(value, str):
                raise ValueError(f"an encoding must be a pair such as [-1, 1], got {value!r}")
            converted[key] = Encoding(_number(key, value[0]), _number(key, value[1]))
        elif key in ("logit_scale", "hidden_scale"):
            converted[key] = _number(key, value)
        elif key in ("gate", "skip"):
            if not isinstance(value, bool):
                raise ValueError(f"{key} must be true or false, got {value!r}")
            converted[key] = value
        else:
            converted[key] = str(value)
    return Option(**converted)


def _number(key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{key} takes numbers, got {value!r}")
    return float(value)


#: The four encodings among which the published experiments choose (arXiv:2301.08292).
PUBLISHED_ENCODINGS = (
    Encoding(0.0, 1.0),
    Encoding(-1.0, 1.0),
    Encoding(-2.0, 1.0),
    Encoding(-3.0, 1.0),
)

"""The configuration of a run: ten sections of plain values, read from TOML.

A value is looked up in four layers; a later layer replaces an earlier one::

    defaults  <  config file  <  [profiles.NAME] of that file  <  section.key=value

A value is replaced as a whole (a list or a table of options is not merged),
except that ``optimiser.options.b1=0.8`` sets one entry of a table. Every name is
checked, in profiles that are not chosen too, so that a mistyped key never runs
with a default in its place. A `Config` is immutable, and `Config.to_toml` writes
every value of it, so that a run folder records what was run::

    [data] [network] [loss] [circuit] [energy]     the problem and its state
    [objective] [optimiser] [train] [decode]       what is done with it
    [restarts]

Source: the layout follows TeNPy's and NetKet's run folders.
"""

import math
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tomli_w

from .bnn import ACTIVATIONS, choice_from_dict
from .hamiltonian import LOSSES

_MNIST_CLASSES = 10
_MNIST_SIDE = 28


class ConfigError(ValueError):
    """A configuration that cannot be run: the message says which key, and the remedy."""


class _Rule(NamedTuple):
    """What a value must be beyond its type; `fix` may be left empty."""

    text: str
    holds: Callable[[Any], bool]
    fix: str = ""
    choices: tuple[Any, ...] = ()


def _one_of(*choices: Any) -> _Rule:
    text = "one of " + ", ".join(repr(choice) for choice in choices)
    return _Rule(text, lambda value: value in choices, "", choices)


def _at_least(minimum: float | int, fix: str = "") -> _Rule:
    return _Rule(f"at least {minimum}", lambda value: value >= minimum, fix)


def _at_most(maximum: float | int, fix: str = "") -> _Rule:
    return _Rule(f"at most {maximum}", lambda value: value <= maximum, fix)


def _above(minimum: float | int, fix: str = "") -> _Rule:
    return _Rule(f"above {minimum}", lambda value: value > minimum, fix)


def _each_at_least(minimum: int) -> _Rule:
    return _Rule(f"integers of at least {minimum}", lambda v: all(item >= minimum for item in v))


_distinct = _Rule("distinct values", lambda v: len(set(v)) == len(v), "leave repetitions out")


def _setting(default: Any, *rules: _Rule) -> Any:
    return field(default=default, metadata={"rules": rules})


def _refuse(key: str, rule: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"{key} must be {rule}, got {value!r}; {fix}")


def _suggest(name: str, known: Sequence[str]) -> str:
    """Return 'did you mean ...?' for a near name, else the list of known names."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


# --- values: from what TOML gives to what a field holds -----------------------------


def _convert(key: str, value: object, kind: Any, example: object) -> Any:
    """Return `value` as `kind`: integers become floats, lists become tuples, tables are copied."""
    fix = f"for example {key} = {_toml(example)}"
    if typing.get_origin(kind) is tuple:
        return _convert_list(key, value, kind, fix)
    if typing.get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise _refuse(key, "a table", value, f"for example {key} = {{ name = 0.5 }}")
        return _plain(key, value)
    if kind is bool:
        if not isinstance(value, bool):
            raise _refuse(key, "true or false", value, fix)
        return value
    if kind is str:
        if not isinstance(value, str):
            raise _refuse(key, "a string", value, "put it between quotes")
        return value
    if kind is int:
        if isinstance(value, float) and value.is_integer():
            fix = f"write {int(value)}"
        if not isinstance(value, int) or isinstance(value, bool):
            raise _refuse(key, "an integer", value, fix)
        return value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise _refuse(key, "a finite number", value, fix)
    return float(value)


def _convert_list(key: str, value: object, kind: Any, fix: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if typing.get_origin(kinds[0]) is dict:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, Mapping) for v in value):
            raise _refuse(key, "a list of tables", value, f"write [[{key}]] above each")
        return tuple(_plain(f"{key}[{index}]", item) for index, item in enumerate(value))
    length = None if kinds[-1] is Ellipsis else len(kinds)
    noun = "integers" if kinds[0] is int else "numbers"
    rule = f"a list of {noun}" if length is None else f"a list of {length} {noun}"
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
        raise _refuse(
            key, rule, value, fix if length is not None else f"for example {key} = [0, 1]"
        )
    example = 0 if kinds[0] is int else 0.5
    return tuple(
        _convert(f"{key}[{index}]", item, kinds[0], example) for index, item in enumerate(value)
    )


def _plain(key: str, value: object) -> Any:
    """Return a copy of a free value of strings, numbers, booleans, lists and tables."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise _refuse(key, "a table with strings as names", value, f"quote {name!r}")
        return {name: _plain(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{key}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, (str, bool, int, float)):
        return value
    rule = "a string, number, boolean, list or table"
    raise _refuse(key, rule, value, "TOML has no other value that an option can take")


def _toml(value: object) -> str:
    """Return a value as TOML on one line, for messages."""
    text = tomli_w.dumps({"v": value}).removeprefix("v = ")
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]")


def _default(spec: Field) -> Any:
    if spec.default_factory is not MISSING:
        return spec.default_factory()
    return spec.default


# --- sections ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Section:
    """Abstract base of the sections: converts and checks every field on creation."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = _check_value(type(self), spec.name, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)


def _check_value(section: type[_Section], name: str, value: object) -> Any:
    """Return the converted value of one key.

    Raises:
        ConfigError: the type or the range is wrong; names key, value, rule and fix.
    """
    spec = next(spec for spec in fields(section) if spec.name == name)
    key, default = f"{section.section}.{name}", _default(spec)
    result = _convert(key, value, typing.get_type_hints(section)[name], default)
    for rule in spec.metadata.get("rules", ()):
        if not rule.holds(result):
            near = get_close_matches(str(result), [str(choice) for choice in rule.choices], n=1)
            fix = f"did you mean {near[0]!r}?" if near else rule.fix
            raise _refuse(key, rule.text, value, fix or f"the default is {_toml(default)}")
    return result


@dataclass(frozen=True)
class DataConfig(_Section):
    """Where the examples come from and what is done to their pixels.

    Attributes:
        source: "mnist", the embedded digits, or "gaussians", the published task of points in
            the plane; without `path` only.
        path: folder or file in IDX or npz form; "" is `source`. `load_config` makes it
            absolute, so that a stored configuration holds in any folder.
        n_points: training and validation points of "gaussians", at least 2.
        n_classes: number of classes of the data of `path`, at least 2; 0 is one more than
            its largest label.
        classes: labels to keep, at least two; empty keeps all.
        pixels: "scale" integers to [0, 1], "quantise" to `levels` values in [0, 1], or
            "binarise" to 1 above `threshold` (of 0..255) and 0 elsewhere.
        levels: number of pixel values of "quantise", 2..256.
        threshold: of "binarise", 0..254.
        downsample: "none", "mean" over areas to `size`, or "pick" `rows` and `columns`.
        size: rows and columns of the image after "mean".
        rows: pixel rows kept by "pick", counted from 0.
        columns: pixel columns kept by "pick", counted from 0.
        validation: "split" takes examples out of the training examples for validation; "none"
            trains on all of them, and what is chosen by validation is chosen on them.
        n_validation: examples taken out of the training examples for validation; 0 is
            a twelfth of them, 5,000 of MNIST.
        split_seed: seed of that choice, and of the points of "gaussians".
        n_train: first examples of the training split, after `classes`, to use; 0 is all.
    """

    section: ClassVar[str] = "data"
    source: str = _setting("mnist", _one_of("mnist", "gaussians"))
    path: str = _setting("")
    n_points: int = _setting(10_000, _at_least(2))
    n_classes: int = _setting(
        0, _Rule("0 or at least 2", lambda v: v == 0 or v >= 2, "0 counts the labels of data.path")
    )
    classes: tuple[int, ...] = _setting(
        (),
        _each_at_least(0),
        _distinct,
        _Rule("empty or at least two labels", lambda v: len(v) != 1, "leave it empty for all"),
    )
    pixels: str = _setting("scale", _one_of("scale", "quantise", "binarise"))
    levels: int = _setting(2, _at_least(2), _at_most(256))
    threshold: int = _setting(127, _at_least(0), _at_most(254))
    downsample: str = _setting("none", _one_of("none", "mean", "pick"))
    size: tuple[int, int] = _setting((_MNIST_SIDE, _MNIST_SIDE), _each_at_least(1))
    rows: tuple[int, ...] = _setting((), _each_at_least(0), _distinct)
    columns: tuple[int, ...] = _setting((), _each_at_least(0), _distinct)
    validation: str = _setting("split", _one_of("split", "none"))
    n_validation: int = _setting(0, _at_least(0, "0 is a twelfth of the training examples"))
    split_seed: int = _setting(0, _at_least(0), _at_most(2**32 - 1))
    n_train: int = _setting(0, _at_least(0, "0 uses the whole training split"))


@dataclass(frozen=True)
class NetworkConfig(_Section):
    """The binary network whose weights, biases and architecture the qubits hold.

    Attributes:
        hidden: neurons of every hidden layer; empty is a linear network.
        activation: of the hidden neurons: "sign", "relu", "sigmoid", "tanh" or "hardtanh".
        encoding: weight value of bit 0 and of bit 1; must differ.
        bias: whether every neuron and output has a bias qubit.
        logit_scale: factor of the outputs, above 0.
        hidden_scale: factor of the hidden pre-activations, above 0.
        skip: whether the inputs are also connected to the outputs directly.
        choices: tables of architecture choices, each with qubits of its own, see
            `hypercircuit.bnn.choice_from_dict`; written as [[network.choices]].
        outputs: number of outputs; 0 is the number of classes, 1 is one logit for
            two classes.
        order: order of the qubits, "class" by class (layer by layer) or "neuron" by neuron with
            one hidden layer, "auto" the latter if it fits; "class-reversed" and
            "neuron-reversed" are the same registers read from their other end.
    """

    section: ClassVar[str] = "network"
    hidden: tuple[int, ...] = _setting((), _each_at_least(1))
    activation: str = _setting("sign", _one_of(*ACTIVATIONS))
    encoding: tuple[float, float] = _setting((-1.0, 1.0), _distinct)
    bias: bool = _setting(True)
    logit_scale: float = _setting(0.3, _above(0))
    hidden_scale: float = _setting(1.0, _above(0))
    skip: bool = _setting(False)
    choices: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    outputs: int = _setting(0, _at_least(0, "0 is one output per class"))
    order: str = _setting(
        "auto", _one_of("auto", "class", "neuron", "class-reversed", "neuron-reversed")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for number, values in enumerate(self.choices):
            try:
                choice_from_dict(values)
            except ValueError as error:
                raise ConfigError(f"network.choices[{number}]: {error}") from error


@dataclass(frozen=True)
class LossConfig(_Section):
    """The loss of one example.

    Attributes:
        kind: "softmax" cross-entropy, "logistic" (one output, or one class against the rest),
            "pairwise-logistic", "squared" error, "sigmoid-squared" error, "hinge",
            "squared-hinge", or "zero-one", the classification error itself.
        tolerance: largest error of the spectral expansion over the reachable range,
            in nats per example (squared error: its own unit), above 0.
    """

    section: ClassVar[str] = "loss"
    kind: str = _setting("softmax", _one_of(*LOSSES))
    tolerance: float = _setting(1e-3, _above(0))


@dataclass(frozen=True)
class CircuitConfig(_Section):
    """The hypercircuit and its first angles.

    Attributes:
        ansatz: "brickwork".
        depth: layers, at least 1; 1 is the product state.
        rotations: "ry-rz" (published) or "ry", whose state and arithmetic are real.
        init: "near-uniform" (a Born distribution near the uniform one) or "uniform"
            (every angle uniform on the circle).
        init_scale: standard deviation of the "near-uniform" angles around their
            centre, in radians.
    """

    section: ClassVar[str] = "circuit"
    ansatz: str = _setting("brickwork", _one_of("brickwork"))
    depth: int = _setting(4, _at_least(1, "depth 1 is the product state"))
    rotations: str = _setting("ry-rz", _one_of("ry-rz", "ry"))
    init: str = _setting("near-uniform", _one_of("near-uniform", "uniform"))
    init_scale: float = _setting(0.1, _at_least(0))


@dataclass(frozen=True)
class EnergyConfig(_Section):
    """The estimator of the energy during training; the final energy is always exact.

    Attributes:
        kind: "cumulant"; "exact"; "sampled", for any network; "statevector": exact from all 2^N
            losses, for at most 24 qubits and all the examples at once; or "auto": "exact" where
            the loss separates and "sampled" where it does not.
        order: cumulants used by "cumulant", 2 or 4.
        samples: networks drawn per step by "sampled", at least 2.
        check_examples: examples on which the estimator is compared with the exact
            energy at every evaluation, at least 1.
    """

    section: ClassVar[str] = "energy"
    kind: str = _setting("cumulant", _one_of("cumulant", "exact", "sampled", "statevector", "auto"))
    order: int = _setting(2, _one_of(2, 4))
    samples: int = _setting(32, _at_least(2))
    check_examples: int = _setting(100, _at_least(1))


@dataclass(frozen=True)
class ObjectiveConfig(_Section):
    """What is minimised: the energy, or the energy and beta times a Kullback-Leibler divergence.

    The divergence is that of the Born distribution from a product prior, from samples.

    Attributes:
        beta: weight of the divergence, in the loss's unit per nat; 0 leaves it out. 1 / (number
            of examples) makes the objective the evidence lower bound.
        prior: probability of bit 1 of every qubit, above 0 and below 1.
        samples: networks drawn per step for it, at least 2.
        schedule: of beta, see `optimiser.schedule`.
        schedule_options: further arguments of the schedule.
    """

    section: ClassVar[str] = "objective"
    beta: float = _setting(0.0, _at_least(0))
    prior: float = _setting(0.5, _above(0), _Rule("below 1", lambda v: v < 1))
    samples: int = _setting(64, _at_least(2))
    schedule: str = _setting("constant")
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class OptimiserConfig(_Section):
    """The optax optimiser and its learning rate.

    Attributes:
        name: name of an optax optimiser, as "adam".
        learning_rate: the largest or first learning rate, in radians, above 0.
        schedule: "constant", "cosine", "linear", "exponential", "warmup_cosine",
            "onecycle" or the name of an optax schedule.
        options: further arguments of the optax optimiser.
        schedule_options: further arguments of the schedule.
        clip_norm: largest global gradient norm; 0 is no clipping.

    `hypercircuit.train.optimisers.make_optimiser` checks the names against optax.
    """

    section: ClassVar[str] = "optimiser"
    name: str = _setting("adam")
    learning_rate: float = _setting(0.1, _above(0))
    schedule: str = _setting("cosine")
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)
    clip_norm: float = _setting(0.0, _at_least(0, "0 turns clipping off"))


@dataclass(frozen=True)
class TrainConfig(_Section):
    """The training loop.

    Attributes:
        steps: optimiser updates, at least 1.
        batch_size: examples of one energy; 0 is all of them.
        seed: of the first angles, the order of the data and the samples, 0..2**32-1.
        evaluate_every: steps between evaluations.
        checkpoint_every: steps between checkpoints.
        precision: "float32" or "float64".
    """

    section: ClassVar[str] = "train"
    steps: int = _setting(1500, _at_least(1))
    batch_size: int = _setting(100, _at_least(0, "0 is all the examples"))
    seed: int = _setting(0, _at_least(0), _at_most(2**32 - 1))
    evaluate_every: int = _setting(250, _at_least(1, "for the end only, set it to train.steps"))
    checkpoint_every: int = _setting(250, _at_least(1, "for the end only, set it to train.steps"))
    precision: str = _setting("float32", _one_of("float32", "float64"))


@dataclass(frozen=True)
class DecodeConfig(_Section):
    """From the Born distribution to the best network.

    Attributes:
        samples: networks drawn, at least 1.
        beam: width of the search for the most likely network, at least 1.
        final_examples: training examples of the final exact energy; 0 is all of
            the training split.
    """

    section: ClassVar[str] = "decode"
    samples: int = _setting(100, _at_least(1))
    beam: int = _setting(16, _at_least(1))
    final_examples: int = _setting(0, _at_least(0, "0 uses the whole training split"))


@dataclass(frozen=True)
class RestartsConfig(_Section):
    """`hypercircuit restarts`: many starts of a problem of at most 24 qubits, depth by depth.

    The circuit is that of [circuit], its depth aside; precision and seed are those of [train].

    Attributes:
        count: restarts at every depth, at least 1.
        depths: layers of the circuits; 1, the product state, is added where it is left out.
        max_iterations: updates after which a restart ends.
        gradient_norm: norm of the gradient at which it ends, in the loss's unit per radian.
        success_distance: a restart succeeds if its energy ends at most this far above the
            minimum over all networks, in the loss's unit, above 0.
        batch: restarts trained side by side.
    """

    section: ClassVar[str] = "restarts"
    count: int = _setting(100, _at_least(1))
    depths: tuple[int, ...] = _setting(
        (1, 2, 4, 6, 8),
        _each_at_least(1),
        _distinct,
        _Rule("at least one depth", lambda v: len(v) > 0, "depth 1 is the product state"),
    )
    max_iterations: int = _setting(500, _at_least(1))
    gradient_norm: float = _setting(1e-6, _at_least(0, "0 runs all iterations"))
    success_distance: float = _setting(1e-4, _above(0))
    batch: int = _setting(50, _at_least(1))


@dataclass(frozen=True)
class Config:
    """Everything that decides a run. `Config()` is the main job.

    The main job is the complete MNIST, 784 inputs and 10 classes: 7,850 qubits and
    a brickwork of depth 4.

    Raises:
        ConfigError: two values contradict each other.
    """

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    circuit: CircuitConfig = field(default_factory=CircuitConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    restarts: RestartsConfig = field(default_factory=RestartsConfig)

    def __post_init__(self) -> None:
        _check_data(self.data)
        _check_outputs(self)
        _check_unused(self)
        if self.energy.kind == "statevector" and self.train.batch_size:
            raise ConfigError(
                "energy.kind='statevector' is the energy of all the examples at once, got "
                f"train.batch_size={self.train.batch_size}; set train.batch_size=0, or "
                "energy.kind='exact'"
            )
        if self.objective.beta == 0:
            for name in ("prior", "samples", "schedule", "schedule_options"):
                value = getattr(self.objective, name)
                if value != getattr(ObjectiveConfig(), name):
                    raise ConfigError(
                        f"objective.{name} is used only with objective.beta above 0, got "
                        f"objective.{name}={_toml(value)}; leave it out, or set objective.beta"
                    )
        if 0 < self.data.n_train < self.train.batch_size:
            raise ConfigError(
                f"train.batch_size must be at most data.n_train={self.data.n_train}, got "
                f"{self.train.batch_size}; set train.batch_size={self.data.n_train}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Build a configuration from {section: {key: value}}; what is left out is the default.

        Raises:
            ConfigError: an unknown section or key, or a wrong type, range or combination.
        """
        return _build(_check_layer(values))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {section: {key: value}} of every key, in strings, numbers, lists and dicts.

        `Config.from_dict` is the inverse, also after a passage through JSON or TOML.
        """
        return {
            section.name: {
                spec.name: _plain("", getattr(getattr(self, section.name), spec.name))
                for spec in fields(getattr(self, section.name))
            }
            for section in fields(self)
        }

    def to_toml(self) -> str:
        """Return the TOML text of every key; `load_config` reads it back to an equal Config."""
        return tomli_w.dumps(self.to_dict())


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    profile: str | None = None,
) -> Config:
    """Read a configuration file and apply a profile and overrides to it.

    Args:
        path: TOML file; None is the embedded main job.
        overrides: "section.key=value" each, the value as in TOML; quotes may be left
            out (`data.pixels=binarise`). One entry of a table of options is
            "optimiser.options.b1=0.8". A later override wins.
        profile: name of a table [profiles.NAME] of the file, such as "smoke".

    Returns:
        The resolved configuration; a relative `data.path` is taken from the current
        directory and made absolute.

    Raises:
        ConfigError: the file is missing or is not TOML; a section, key or profile is
            unknown (the message has the nearest known name); a value has the wrong
            type or range; or two values contradict each other.
    """
    table = {} if path is None else _read_toml(Path(path))
    profiles = table.pop("profiles", {})
    if not isinstance(profiles, dict):
        raise ConfigError(
            f"{path}: profiles must be a table, got {profiles!r}; write [profiles.NAME]"
        )
    layers = [_check_layer(table, f"{path}: ")] if path is not None else []
    checked = {
        name: _check_layer(values, f"{path}: in profiles.{name}: ")
        for name, values in profiles.items()
    }
    if profile is not None:
        layers.append(_choose_profile(checked, profile, path))
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    for override in overrides:
        _apply_override(merged, override)
    if merged.get("data", {}).get("path"):
        merged["data"]["path"] = _absolute(merged["data"]["path"])
    return _build(merged)


def _absolute(path: str) -> str:
    """Return `path` from the root; a link that is its last part is kept for its name."""
    relative = Path(path)
    if relative.is_absolute():
        return path
    if relative.name in ("", ".."):
        return str(relative.resolve())
    return str(relative.parent.resolve() / relative.name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"config file {str(path)!r} does not exist; check the path, or leave it out for the "
            "embedded main job"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config file {str(path)!r} must be a readable text file, got {error}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {str(path)!r} must be TOML: {error}") from error


def _choose_profile(
    profiles: Mapping[str, dict[str, dict[str, Any]]], name: str, path: str | Path | None
) -> dict[str, dict[str, Any]]:
    if path is None:
        raise ConfigError(f"profile {name!r} needs a config file that defines it; give the file")
    if name not in profiles:
        known = ", ".join(repr(known) for known in profiles) or "none"
        raise ConfigError(f"unknown profile {name!r} of {path}; the file has: {known}")
    return profiles[name]


def _section_class(name: str) -> type[_Section]:
    hints = typing.get_type_hints(Config)
    if name not in hints:
        if name == "profiles":
            raise ConfigError("section 'profiles' is read from a config file only; put it there")
        raise ConfigError(f"unknown section {name!r}; {_suggest(name, list(hints))}")
    return hints[name]


def _check_key(section: type[_Section], name: str) -> None:
    names = _key_names(section)
    if name in names:
        return
    sections = typing.get_type_hints(Config).values()
    elsewhere = [other.section for other in sections if name in _key_names(other)]
    fix = f"did you mean '{elsewhere[0]}.{name}'?" if elsewhere else _suggest(name, names)
    raise ConfigError(f"unknown key {name!r} in section {section.section!r}; {fix}")


def _key_names(section: type[_Section]) -> list[str]:
    return [spec.name for spec in fields(section)]


def _check_layer(table: object, where: str = "") -> dict[str, dict[str, Any]]:
    """Return a layer with every name known and every value converted; `where` leads errors."""
    layer: dict[str, dict[str, Any]] = {}
    try:
        if not isinstance(table, Mapping):
            raise _refuse("a configuration", "a table of sections", table, "write [train] above it")
        for name, values in table.items():
            section = _section_class(name)
            if not isinstance(values, Mapping):
                raise _refuse(name, "a section", values, f"write [{name}] and keys below it")
            layer[name] = {}
            for key, value in values.items():
                _check_key(section, key)
                layer[name][key] = _check_value(section, key, value)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    return layer


def _build(layer: Mapping[str, dict[str, Any]]) -> Config:
    sections: dict[str, Any] = {
        name: _section_class(name)(**values) for name, values in layer.items()
    }
    return Config(**sections)


def _apply_override(merged: dict[str, dict[str, Any]], override: str) -> None:
    """Set one value of `merged`, which the caller owns, from "section.key=value"."""
    try:
        left, equals, text = override.partition("=")
        names = [name.strip() for name in left.split(".")]
        if not equals or len(names) < 2 or not all(names):
            raise ConfigError("an override is section.key=value, as train.steps=1000")
        section = _section_class(names[0])
        _check_key(section, names[1])
        kind = typing.get_type_hints(section)[names[1]]
        value = _parse_value(text.strip(), is_string=kind is str)
        if len(names) > 2:
            if typing.get_origin(kind) is not dict or len(names) > 3:
                raise ConfigError(
                    f"{left.strip()} is not a key; did you mean '{'.'.join(names[:2])}'?"
                )
            value = {**merged.get(names[0], {}).get(names[1], {}), names[2]: value}
        merged.setdefault(names[0], {})[names[1]] = _check_value(section, names[1], value)
    except ConfigError as error:
        raise ConfigError(f"override {override!r}: {error}") from None


def _parse_value(text: str, *, is_string: bool) -> object:
    """Return the TOML value of `text`; what is not one, or not wanted as one, is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"the value must be TOML: {error}") from error
        return text
    if set(parsed) != {"value"}:
        return text
    value = parsed["value"]
    return text if is_string and not isinstance(value, str) else value


# --- values that must fit each other ---------------------------------------------------


def _check_data(data: DataConfig) -> None:
    if data.path and data.source != "mnist":
        raise ConfigError(
            f"data.source is used only without data.path, got data.source={data.source!r} and "
            f"data.path={data.path!r}; leave one of them out"
        )
    if data.source == "gaussians":
        _check_gaussians(data)
        return
    embedded = not data.path
    if embedded and any(label >= _MNIST_CLASSES for label in data.classes):
        raise ConfigError(
            f"data.classes must be labels 0..9 of the embedded MNIST, got {list(data.classes)}; "
            "leave the others out, or set data.path"
        )
    if embedded and data.n_classes:
        raise ConfigError(
            f"data.n_classes is used only with data.path, got data.n_classes={data.n_classes} and "
            "data.path=''; leave data.n_classes at 0, or set data.path"
        )
    if data.n_classes and any(label >= data.n_classes for label in data.classes):
        raise ConfigError(
            f"data.classes must be labels less than data.n_classes={data.n_classes}, got "
            f"{list(data.classes)}; leave the others out, or set a larger data.n_classes"
        )
    if data.downsample == "pick" and not (data.rows and data.columns):
        raise ConfigError(
            "data.downsample='pick' needs data.rows and data.columns, got "
            f"rows={list(data.rows)} and columns={list(data.columns)}; for example "
            "data.rows=[3, 10, 17, 24]"
        )
    for key in ("rows", "columns"):
        if embedded and any(index >= _MNIST_SIDE for index in getattr(data, key)):
            raise ConfigError(
                f"data.{key} must be at most {_MNIST_SIDE - 1} for the embedded MNIST, got "
                f"{list(getattr(data, key))}; count from 0"
            )
    if embedded and max(data.size) > _MNIST_SIDE:
        raise ConfigError(
            f"data.size must be at most [{_MNIST_SIDE}, {_MNIST_SIDE}] for the embedded MNIST, "
            f"got {list(data.size)}; 'mean' only makes images smaller"
        )


def _check_gaussians(data: DataConfig) -> None:
    """Points in the plane have two classes and no pixels."""
    for key in ("classes", "n_classes", "pixels", "downsample"):
        value, default = getattr(data, key), getattr(DataConfig(), key)
        if value != default:
            raise ConfigError(
                f"data.{key} is of no use with data.source='gaussians', points of two classes, "
                f"got {_toml(value)}; leave data.{key} out"
            )


def _check_outputs(config: Config) -> None:
    """Compare outputs, classes and loss as far as the number of classes is known here."""
    data, outputs, kind = config.data, config.network.outputs, config.loss.kind
    n_classes = (
        len(data.classes)
        or data.n_classes
        or (None if data.path else 2 if data.source == "gaussians" else _MNIST_CLASSES)
    )
    if outputs == 1 and n_classes not in (2, None):
        raise ConfigError(
            f"network.outputs=1 needs exactly two classes, got {n_classes}; set data.classes to "
            "two labels, or network.outputs=0 for one output per class"
        )
    if outputs > 1 and n_classes not in (outputs, None):
        raise ConfigError(
            f"network.outputs must be the number of classes, {n_classes}, got {outputs}; set "
            "network.outputs=0 for one output per class"
        )
    if kind in ("softmax", "pairwise-logistic") and outputs == 1:
        raise ConfigError(
            f"loss.kind={kind!r} needs at least two outputs, got network.outputs=1; set "
            "loss.kind='logistic', or network.outputs=0"
        )
    network = config.network
    if not network.hidden:
        for key in ("activation", "hidden_scale", "skip"):
            value = getattr(network, key)
            if value != getattr(NetworkConfig(), key):
                raise ConfigError(
                    f"network.{key} is used only with hidden layers, got network.{key}="
                    f"{_toml(value)}; leave it out, or set network.hidden, for example [64]"
                )


def _check_unused(config: Config) -> None:
    """Refuse a value that was changed and that the rest of the configuration ignores."""
    for key, condition, wanted in (
        ("data.n_points", "data.source", "gaussians"),
        ("data.n_validation", "data.validation", "split"),
        ("data.levels", "data.pixels", "quantise"),
        ("data.threshold", "data.pixels", "binarise"),
        ("data.size", "data.downsample", "mean"),
        ("data.rows", "data.downsample", "pick"),
        ("data.columns", "data.downsample", "pick"),
        ("circuit.init_scale", "circuit.init", "near-uniform"),
        ("energy.order", "energy.kind", "cumulant"),
        ("energy.samples", "energy.kind", "sampled"),
    ):
        section, name = key.split(".")
        value, setting = _get(config, key), _get(config, condition)
        default = getattr(type(getattr(config, section))(), name)
        if setting != wanted and value != default:
            raise ConfigError(
                f"{key} is used only with {condition}='{wanted}', got {key}={_toml(value)} and "
                f"{condition}='{setting}'; leave {key} out, or set {condition}='{wanted}'"
            )


def _get(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)

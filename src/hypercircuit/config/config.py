"""The whole of a configuration, and which of its values must fit each other."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import tomli_w

from .fit import MNIST_CLASSES, check_fit, known_classes
from .sections import (
    MNIST_SIDE,
    CircuitConfig,
    DataConfig,
    DecodeConfig,
    EnergyConfig,
    LossConfig,
    MPOConfig,
    NetworkConfig,
    NoiseConfig,
    ObjectiveConfig,
    OptimiserConfig,
    RestartsConfig,
    Section,
    StateConfig,
    TrainConfig,
    check_value,
)
from .slurm import SlurmConfig
from .values import ConfigError, fold_lists, plain, refuse, suggest, to_text


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
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    state: StateConfig = field(default_factory=StateConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    mpo: MPOConfig = field(default_factory=MPOConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    restarts: RestartsConfig = field(default_factory=RestartsConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        _check_data(self.data)
        _check_outputs(self)
        _check_unused(self)
        _check_graph(self)
        _check_state(self)
        if self.energy.kind in ("statevector", "mpo") and self.train.batch_size:
            raise ConfigError(
                f"energy.kind={self.energy.kind!r} is the energy of all the examples at once, got "
                f"train.batch_size={self.train.batch_size}; set train.batch_size=0, or "
                "energy.kind='exact'"
            )
        if self.energy.kind not in ("sampled", "auto") and self.energy.samples != 32:
            raise ConfigError(
                "energy.samples is used only with energy.kind='sampled' or 'auto', got "
                f"energy.samples={self.energy.samples} and energy.kind={self.energy.kind!r}"
            )
        if self.energy.kind == "mpo":
            _check_mpo(self)
        else:
            for name in ("trust", "check_every", "samples"):
                value = getattr(self.mpo, name)
                if value != getattr(MPOConfig(), name):
                    raise ConfigError(
                        f"mpo.{name} is used only with energy.kind='mpo', got "
                        f"mpo.{name}={to_text(value)} and energy.kind={self.energy.kind!r}"
                    )
        if self.optimiser.name == "lbfgs":
            _check_lbfgs(self)
        if self.objective.beta == 0:
            for name in ("prior", "samples", "schedule", "schedule_options"):
                value = getattr(self.objective, name)
                if value != getattr(ObjectiveConfig(), name):
                    raise ConfigError(
                        f"objective.{name} is used only with objective.beta above 0, got "
                        f"objective.{name}={to_text(value)}; leave it out, or set objective.beta"
                    )
        if any(bond > self.mpo.max_bond for bond in self.mpo.bonds):
            raise ConfigError(
                f"mpo.bonds must be at most mpo.max_bond={self.mpo.max_bond}, got "
                f"{list(self.mpo.bonds)}; leave the wider ones out, or set a larger mpo.max_bond"
            )
        if 0 < self.data.n_train < self.train.batch_size:
            raise ConfigError(
                f"train.batch_size must be at most data.n_train={self.data.n_train}, got "
                f"{self.train.batch_size}; set train.batch_size={self.data.n_train}"
            )
        check_fit(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Build a configuration from {section: {key: value}}; what is left out is the default.

        Raises:
            ConfigError: an unknown section or key, or a wrong type, range or combination.
        """
        return build(check_layer(values))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {section: {key: value}} of every key, in strings, numbers, lists and dicts.

        `Config.from_dict` is the inverse, also after a passage through JSON or TOML.
        """
        return {
            section.name: {
                spec.name: plain("", getattr(getattr(self, section.name), spec.name))
                for spec in fields(getattr(self, section.name))
            }
            for section in fields(self)
        }

    def differences(self, other: "Config") -> list[tuple[str, Any, Any]]:
        """Return ("section.key", own value, the other's) where the two decide different runs.

        [slurm] says where a run is carried out and decides nothing of it.
        """
        own, others = self.to_dict(), other.to_dict()
        return [
            (f"{section}.{key}", own[section][key], others[section][key])
            for section in own
            if section != SlurmConfig.section
            for key in own[section]
            if own[section][key] != others[section][key]
        ]

    def to_toml(self) -> str:
        """Return the TOML text of every key; `load_config` reads it back to an equal Config."""
        return fold_lists(tomli_w.dumps(self.to_dict()))


def _check_mpo(config: Config) -> None:
    """Refuse what training on compressed operators would leave unused."""
    if config.energy.check_examples != EnergyConfig().check_examples:
        raise ConfigError(
            "energy.check_examples is not used with energy.kind='mpo', got "
            f"{config.energy.check_examples}: its error is measured on mpo.samples networks and "
            "all the examples; leave it out"
        )


def _check_lbfgs(config: Config) -> None:
    """Refuse what L-BFGS would leave unused or cannot do."""
    for name in ("learning_rate", "schedule", "schedule_options", "clip_norm"):
        value = getattr(config.optimiser, name)
        if value != getattr(OptimiserConfig(), name):
            raise ConfigError(
                f"optimiser.{name} is not used with optimiser.name='lbfgs', got "
                f"optimiser.{name}={to_text(value)}; leave it out"
            )
    unknown = [name for name in config.optimiser.options if name != "memory_size"]
    if unknown:
        raise ConfigError(
            f"optimiser.options has the key {unknown[0]!r}, which lbfgs does not know; it knows "
            "memory_size"
        )
    if (
        config.train.batch_size
        or config.energy.kind in ("sampled", "auto")
        or config.objective.beta
    ):
        raise ConfigError(
            "optimiser.name='lbfgs' needs an energy that is no estimate, got "
            f"train.batch_size={config.train.batch_size}, energy.kind={config.energy.kind!r} and "
            f"objective.beta={config.objective.beta}; set train.batch_size=0, energy.kind='mpo', "
            "'exact' or 'contraction' and objective.beta=0"
        )


def section_class(name: str) -> type[Section]:
    """The section called `name`, or a `ConfigError` with the nearest known one."""
    hints = typing.get_type_hints(Config)
    if name not in hints:
        if name == "profiles":
            raise ConfigError("section 'profiles' is read from a config file only; put it there")
        raise ConfigError(f"unknown section {name!r}; {suggest(name, list(hints))}")
    return hints[name]


def check_key(section: type[Section], name: str) -> None:
    """Refuse a key that the section does not have."""
    names = _key_names(section)
    if name in names:
        return
    sections = typing.get_type_hints(Config).values()
    elsewhere = [other.section for other in sections if name in _key_names(other)]
    fix = f"did you mean '{elsewhere[0]}.{name}'?" if elsewhere else suggest(name, names)
    raise ConfigError(f"unknown key {name!r} in section {section.section!r}; {fix}")


def _key_names(section: type[Section]) -> list[str]:
    return [spec.name for spec in fields(section)]


def check_layer(table: object, where: str = "") -> dict[str, dict[str, Any]]:
    """Return a layer with every name known and every value converted; `where` leads errors."""
    layer: dict[str, dict[str, Any]] = {}
    try:
        if not isinstance(table, Mapping):
            raise refuse("a configuration", "a table of sections", table, "write [train] above it")
        for name, values in table.items():
            section = section_class(name)
            if not isinstance(values, Mapping):
                raise refuse(name, "a section", values, f"write [{name}] and keys below it")
            layer[name] = {}
            for key, value in values.items():
                check_key(section, key)
                layer[name][key] = check_value(section, key, value)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    return layer


def build(layer: Mapping[str, dict[str, Any]]) -> Config:
    """The configuration of a checked layer."""
    sections: dict[str, Any] = {
        name: section_class(name)(**values) for name, values in layer.items()
    }
    return Config(**sections)


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
    if embedded and any(label >= MNIST_CLASSES for label in data.classes):
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
        if embedded and any(index >= MNIST_SIDE for index in getattr(data, key)):
            raise ConfigError(
                f"data.{key} must be at most {MNIST_SIDE - 1} for the embedded MNIST, got "
                f"{list(getattr(data, key))}; count from 0"
            )
    if embedded and max(data.size) > MNIST_SIDE:
        raise ConfigError(
            f"data.size must be at most [{MNIST_SIDE}, {MNIST_SIDE}] for the embedded MNIST, "
            f"got {list(data.size)}; 'mean' only makes images smaller"
        )


def _check_gaussians(data: DataConfig) -> None:
    """Points in the plane have two classes and no pixels."""
    for key in ("classes", "n_classes", "pixels", "downsample"):
        value, default = getattr(data, key), getattr(DataConfig(), key)
        if value != default:
            raise ConfigError(
                f"data.{key} is of no use with data.source='gaussians', points of two classes, "
                f"got {to_text(value)}; leave data.{key} out"
            )


def _check_outputs(config: Config) -> None:
    """Compare outputs, classes and loss as far as the number of classes is known here."""
    data, outputs, kind = config.data, config.network.outputs, config.loss.kind
    n_classes = known_classes(data)
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
                    f"{to_text(value)}; leave it out, or set network.hidden, for example [64]"
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
        ("circuit.edges", "circuit.ansatz", "graph"),
        ("circuit.schedule", "circuit.ansatz", "graph"),
        ("circuit.pairs", "circuit.edges", "pairs"),
        ("circuit.centre", "circuit.edges", "star"),
        ("energy.order", "energy.kind", "cumulant"),
        ("state.cutoff", "state.engine", "truncated"),
        ("state.scheme", "state.engine", "truncated"),
    ):
        section, name = key.split(".")
        value, setting = _get(config, key), _get(config, condition)
        default = getattr(type(getattr(config, section))(), name)
        if setting != wanted and value != default:
            raise ConfigError(
                f"{key} is used only with {condition}='{wanted}', got {key}={to_text(value)} and "
                f"{condition}='{setting}'; leave {key} out, or set {condition}='{wanted}'"
            )


def _check_graph(config: Config) -> None:
    """Graphs and contractions belong together, but a chain can be contracted too."""
    graph, kind = config.circuit.ansatz == "graph", config.energy.kind
    if graph and kind not in ("contraction", "auto"):
        raise ConfigError(
            "energy.kind must be 'contraction' or 'auto' with circuit.ansatz='graph', got "
            f"{kind!r}, an energy of chains; set energy.kind='contraction', or "
            "circuit.ansatz='brickwork'"
        )
    if graph and config.energy.samples != EnergyConfig().samples:
        raise ConfigError(
            "energy.samples is not used with circuit.ansatz='graph', whose energies are "
            f"contracted, got energy.samples={config.energy.samples}; leave it out"
        )
    if graph and config.objective.beta:
        raise ConfigError(
            "objective.beta must be 0 with circuit.ansatz='graph', got "
            f"{config.objective.beta}; the divergence is sampled from chains only"
        )
    if kind == "contraction" and config.objective.beta:
        raise ConfigError(
            "objective.beta must be 0 with energy.kind='contraction', got "
            f"{config.objective.beta}; set energy.kind='exact' or 'cumulant'"
        )
    if graph and config.circuit.edges == "pairs" and not config.circuit.pairs:
        raise ConfigError(
            "circuit.edges='pairs' needs circuit.pairs, for example circuit.pairs=[[0, 1], [1, 2]]"
        )
    if not graph and kind != "contraction":
        for name in ("max_bytes", "max_flops", "path_cache"):
            value = getattr(config.energy, name)
            if value != getattr(EnergyConfig(), name):
                raise ConfigError(
                    f"energy.{name} is used only for contractions, got energy.{name}="
                    f"{to_text(value)} and energy.kind={kind!r}; leave it out, or set "
                    "energy.kind='contraction'"
                )


def _check_state(config: Config) -> None:
    """Refuse what the state's engine would ignore, and what does not go with it."""
    ansatz, state = config.circuit.ansatz, config.state
    if state.engine == "truncated" and ansatz != "brickwork":
        raise ConfigError(
            f"state.engine='truncated' is for brickworks, got circuit.ansatz={ansatz!r}; "
            "set state.engine='exact', or circuit.ansatz='brickwork'"
        )
    bounded = state.engine == "truncated" or ansatz == "free-mps"
    if not bounded and state.max_bond != StateConfig().max_bond:
        raise ConfigError(
            "state.max_bond is used only with state.engine='truncated' or "
            f"circuit.ansatz='free-mps', got state.max_bond={state.max_bond}; leave it out, or set "
            "one of them"
        )
    if state.diagnostics and config.noise.present:
        raise ConfigError(
            "state.diagnostics are those of pure states, got noise.multiplier="
            f"{config.noise.multiplier:g} and noise.readout={config.noise.readout:g}; leave one out"
        )
    if state.diagnostics and ansatz == "graph":
        raise ConfigError(
            "state.diagnostics are those of chains, got circuit.ansatz='graph'; leave it out"
        )
    if ansatz == "free-mps" and config.circuit.depth != CircuitConfig().depth:
        raise ConfigError(
            "circuit.depth is not used with circuit.ansatz='free-mps', which is no circuit, got "
            f"circuit.depth={config.circuit.depth}; leave it out, and set state.max_bond"
        )
    if not bounded:
        return
    kind = config.energy.kind
    if kind == "contraction":
        raise ConfigError(
            "energy.kind='contraction' contracts the circuit itself and takes no state of bounded "
            "bond; set energy.kind='exact' or 'sampled', or state.engine='exact'"
        )
    if kind == "cumulant" and config.energy.order > 2:
        raise ConfigError(
            f"energy.order must be 2 in states of bounded bond, got {config.energy.order}; set "
            "energy.order=2, or state.engine='exact'"
        )


def _get(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)

"""The sections of a configuration: every key, its type, its range and its default."""

import functools
import typing
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..bnn import ACTIVATIONS, choice_from_dict
from ..circuit.brickwork import INITIALISERS, ROTATIONS
from ..circuit.graph import SCHEDULES
from ..circuit.noise import PUBLISHED_ONE_QUBIT, PUBLISHED_TWO_QUBIT
from ..circuit.truncated import SCHEME_NAMES
from ..hamiltonian import LOSSES
from ..hamiltonian.compile import MIN_TOLERANCE
from .values import (
    ConfigError,
    Rule,
    above,
    at_least,
    at_most,
    convert,
    default_of,
    distinct,
    each_at_least,
    each_one_of,
    nearest_choice,
    one_of,
    refuse,
    setting,
    to_text,
)

MNIST_SIDE = 28
ENERGIES = ("cumulant", "exact", "sampled", "statevector", "contraction", "mpo", "auto")


@dataclass(frozen=True)
class Section:
    """Abstract base of the sections: converts and checks every field on creation."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = check_value(type(self), spec.name, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)


@functools.cache
def key_types(section: Any) -> dict[str, Any]:
    """The type of every key of a section."""
    return typing.get_type_hints(section)


def check_value(section: type[Section], name: str, value: object) -> Any:
    """Return the converted value of one key.

    Raises:
        ConfigError: the type or the range is wrong; names key, value, rule and fix.
    """
    spec = next(spec for spec in fields(section) if spec.name == name)
    key, default = f"{section.section}.{name}", default_of(spec)
    # A class is hashable, whatever its instances are.
    kind = key_types(section)[name]  # type: ignore[arg-type]
    result = convert(key, value, kind, default)
    for rule in spec.metadata.get("rules", ()):
        if not rule.holds(result):
            near = nearest_choice(rule, result) if rule.choices else None
            fix = f"did you mean {near!r}?" if near is not None else rule.fix
            raise refuse(key, rule.text, value, fix or f"the default is {to_text(default)}")
    return result


@dataclass(frozen=True)
class DataConfig(Section):
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
            trains on all of them: what is chosen by validation is chosen on them, and there are
            no scores on validation examples.
        n_validation: examples taken out of the training examples for validation; 0 is
            a twelfth of them, 5,000 of MNIST.
        split_seed: seed of that choice, and of the points of "gaussians".
        n_train: first examples of the training split, after `classes`, to use; 0 is all.
    """

    section: ClassVar[str] = "data"
    source: str = setting("mnist", one_of("mnist", "gaussians"))
    path: str = setting("")
    n_points: int = setting(10_000, at_least(2))
    n_classes: int = setting(
        0, Rule("0 or at least 2", lambda v: v == 0 or v >= 2, "0 counts the labels of data.path")
    )
    classes: tuple[int, ...] = setting(
        (),
        each_at_least(0),
        distinct,
        Rule("empty or at least two labels", lambda v: len(v) != 1, "leave it empty for all"),
    )
    pixels: str = setting("scale", one_of("scale", "quantise", "binarise"))
    levels: int = setting(2, at_least(2), at_most(256))
    threshold: int = setting(127, at_least(0), at_most(254))
    downsample: str = setting("none", one_of("none", "mean", "pick"))
    size: tuple[int, int] = setting((MNIST_SIDE, MNIST_SIDE), each_at_least(1))
    rows: tuple[int, ...] = setting((), each_at_least(0), distinct)
    columns: tuple[int, ...] = setting((), each_at_least(0), distinct)
    validation: str = setting("split", one_of("split", "none"))
    n_validation: int = setting(0, at_least(0, "0 is a twelfth of the training examples"))
    split_seed: int = setting(0, at_least(0), at_most(2**32 - 1))
    n_train: int = setting(0, at_least(0, "0 uses the whole training split"))


@dataclass(frozen=True)
class NetworkConfig(Section):
    """The binary network whose weights, biases and architecture the qubits hold.

    Attributes:
        hidden: neurons of every hidden layer; empty is a linear network.
        activation: of the hidden neurons: "sign", "relu", "sigmoid", "tanh" or "hardtanh"; or a
            list of these, one per hidden layer.
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
    hidden: tuple[int, ...] = setting((), each_at_least(1))
    activation: str | tuple[str, ...] = setting("sign", each_one_of(*ACTIVATIONS))
    encoding: tuple[float, float] = setting((-1.0, 1.0), distinct)
    bias: bool = setting(True)
    logit_scale: float = setting(0.3, above(0))
    hidden_scale: float = setting(1.0, above(0))
    skip: bool = setting(False)
    choices: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    outputs: int = setting(0, at_least(0, "0 is one output per class"))
    order: str = setting(
        "auto", one_of("auto", "class", "neuron", "class-reversed", "neuron-reversed")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.activation, tuple) and len(self.activation) != len(self.hidden):
            raise ConfigError(
                f"network.activation must be one name or one per hidden layer, got "
                f"{len(self.activation)} names, {list(self.activation)}, and "
                f"{len(self.hidden)} hidden layers, network.hidden={list(self.hidden)}"
            )
        for number, values in enumerate(self.choices):
            try:
                choice_from_dict(values)
            except ValueError as error:
                raise ConfigError(f"network.choices[{number}]: {error}") from error


@dataclass(frozen=True)
class LossConfig(Section):
    """The loss of one example.

    Attributes:
        kind: "softmax" cross-entropy, "logistic" (one output, or one class against the rest),
            "pairwise-logistic", "squared" error, "sigmoid-squared" error, "hinge",
            "squared-hinge", or "zero-one", the classification error itself.
        tolerance: largest error of the spectral expansion over the reachable range, in the
            loss's unit per example, from 1e-10 to below 1.
    """

    section: ClassVar[str] = "loss"
    kind: str = setting("softmax", one_of(*LOSSES))
    tolerance: float = setting(
        1e-3,
        at_least(MIN_TOLERANCE, "for exact sums quantise or binarise the pixels"),
        Rule("below 1", lambda v: v < 1, "a loss is of the order of one"),
    )


@dataclass(frozen=True)
class CircuitConfig(Section):
    """The hypercircuit and its first angles.

    Attributes:
        ansatz: "brickwork"; "graph", whose CX act along `edges`; its energies are contracted; or
            "free-mps", no circuit: the parameters are the tensors of a matrix product state of
            bond dimension `state.max_bond`, real ones with rotations="ry".
        depth: layers, at least 1; 1 is the product state.
        rotations: "ry-rz" (published) or "ry", whose state and arithmetic are real.
        init: "near-uniform" (a Born distribution near the uniform one) or "uniform"
            (every angle uniform on the circle).
        init_scale: standard deviation of the "near-uniform" angles around their
            centre, in radians.
        edges: of "graph": "ring"; "tree", a binary one; "star", qubit `centre` controls all
            others; "grid", every output's image, each pixel tied to its neighbours;
            "architecture", the qubits of network-wide choices tied to every neuron of the first
            layer, whose own sites are a chain (output biases and skip connections have no edge);
            or "pairs".
        pairs: the edges of "pairs", control first.
        centre: of "star", a qubit counted from 0.
        schedule: "colours", a layer applies one matching of the edges; "all", every edge; or
            "auto", the latter for "star" and "architecture" and the former for others.
    """

    section: ClassVar[str] = "circuit"
    ansatz: str = setting("brickwork", one_of("brickwork", "graph", "free-mps"))
    depth: int = setting(4, at_least(1, "depth 1 is the product state"))
    rotations: str = setting("ry-rz", one_of(*ROTATIONS))
    init: str = setting("near-uniform", one_of(*INITIALISERS))
    init_scale: float = setting(0.1, at_least(0))
    edges: str = setting("ring", one_of("ring", "tree", "star", "grid", "architecture", "pairs"))
    pairs: tuple[tuple[int, int], ...] = setting(())
    centre: int = setting(0, at_least(0))
    schedule: str = setting("auto", one_of("auto", *SCHEDULES))


@dataclass(frozen=True)
class NoiseConfig(Section):
    """Errors of the circuit's gates and of its readout, exact in every energy of a brickwork.

    With `multiplier` and `readout` 0, the default, there are none. See `hypercircuit.Noise` for
    the channels; `hypercircuit noise` evaluates a finished run at several multipliers.

    Attributes:
        multiplier: factor on the two rates, at least 0; that of the published runs is 0 to 2.
        one_qubit: probability, at multiplier 1, that a Ry or Rz is followed by a random Pauli.
        two_qubit: probability, at multiplier 1, that a CX is followed by a random pair of Paulis.
        readout: probability that a bit is read as its opposite, at most 0.5.
    """

    section: ClassVar[str] = "noise"
    multiplier: float = setting(0.0, at_least(0, "0 is a circuit without errors of gates"))
    one_qubit: float = setting(PUBLISHED_ONE_QUBIT, at_least(0), at_most(1))
    two_qubit: float = setting(PUBLISHED_TWO_QUBIT, at_least(0), at_most(1))
    readout: float = setting(0.0, at_least(0), at_most(0.5))

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = self.multiplier * max(self.one_qubit, self.two_qubit)
        if largest > 1:
            raise ConfigError(
                f"noise.multiplier={self.multiplier:g} makes a probability of {largest:g} of "
                f"noise.one_qubit={self.one_qubit:g} or noise.two_qubit={self.two_qubit:g}; at "
                "most 1 is possible"
            )

    @property
    def present(self) -> bool:
        """Whether anything errs."""
        return self.multiplier * (self.one_qubit + self.two_qubit) > 0 or self.readout > 0


@dataclass(frozen=True)
class StateConfig(Section):
    """How the state is held that the circuit makes.

    Attributes:
        engine: "exact", whose bond doubles with every second layer; or "truncated" to `max_bond`
            after every layer, for brickworks of any depth.
        max_bond: largest bond dimension of "truncated" and of circuit.ansatz="free-mps".
        cutoff: of "truncated", relative weight below which singular values are dropped though
            `max_bond` has room, from 0 to below 1.
        scheme: of "truncated": "sweep", optimal truncations one after the other, or "parallel",
            all bonds of a layer at once.
        diagnostics: whether a run ends with the entropies, correlation length, mutual information
            and truncation errors of its state, see `hypercircuit diagnose`.
    """

    section: ClassVar[str] = "state"
    engine: str = setting("exact", one_of("exact", "truncated"))
    max_bond: int = setting(16, at_least(1, "1 is the product state"))
    cutoff: float = setting(0.0, at_least(0), Rule("below 1", lambda v: v < 1))
    scheme: str = setting("sweep", one_of(*SCHEME_NAMES))
    diagnostics: bool = setting(False)


@dataclass(frozen=True)
class EnergyConfig(Section):
    """The estimator of the energy during training; the final energy is exact where there is one.

    It is the energy of the state that [state] and [circuit] make, truncation included.

    Attributes:
        kind: "cumulant"; "exact"; "sampled", for any network; "statevector": exact from all 2^N
            losses, for at most 24 qubits and all the examples at once; "mpo", compressed operators
            for all the examples at once, see [mpo]; "contraction": exact on any graph; or "auto":
            "contraction" on a graph, otherwise "exact" where the loss separates and "sampled"
            where it does not.
        order: cumulants used by "cumulant", 2 or 4.
        samples: networks drawn per step by "sampled", at least 2.
        check_examples: examples on which the estimator is compared with the exact
            energy at every evaluation, at least 1.
        max_bytes: memory that a contraction and its gradient may take.
        max_flops: floating-point operations that they may take for one batch.
        path_cache: folder of contraction paths; "" is `hypercircuit/paths` in the user's cache.
    """

    section: ClassVar[str] = "energy"
    kind: str = setting("cumulant", one_of(*ENERGIES))
    order: int = setting(2, one_of(2, 4))
    samples: int = setting(32, at_least(2))
    check_examples: int = setting(100, at_least(1))
    max_bytes: float = setting(2e9, above(0))
    max_flops: float = setting(1e13, above(0))
    path_cache: str = setting("")


@dataclass(frozen=True)
class MPOConfig(Section):
    """The loss of all the examples as compressed matrix product operators.

    For `hypercircuit compile` and for training with energy.kind = "mpo". The precision of the large
    products is that of [train]; so is the seed of `compile`, training compresses with seed 0.

    Attributes:
        max_bond: largest bond dimension of the operators, at least 1.
        tolerance: root mean square error, in the loss's unit per example and in the metric, that
            truncation may make as far as `max_bond` allows; 0 keeps what `max_bond` allows.
        metric: "uniform", where all networks weigh the same; "state", the product distribution of
            the bits of a state; "auto": that of the state in training and of the state that
            `compile` is given, uniform without one.
        trust: in training, the error on samples of the state, as a share of their mean loss,
            beyond which the loss is compressed again around the state; with the uniform metric
            that is only said. The result says whether the operators ended within it.
        check_every: steps between two measurements of that error.
        samples: networks drawn for each of them.
        bonds: of `compile`, bond dimensions at which the error is studied, at most `max_bond`;
            empty is an eighth, a quarter and a half of `max_bond`. `max_bond` itself is always
            there.
        networks: of `compile` and at the end of training, how many are drawn from every
            distribution on which an error is measured, at least 2.
    """

    section: ClassVar[str] = "mpo"
    max_bond: int = setting(64, at_least(1))
    tolerance: float = setting(0.0, at_least(0, "0 keeps what mpo.max_bond allows"))
    metric: str = setting("auto", one_of("auto", "state", "uniform"))
    trust: float = setting(0.02, at_least(0, "0 compresses at every measurement"))
    check_every: int = setting(10, at_least(1))
    samples: int = setting(64, at_least(2))
    bonds: tuple[int, ...] = setting((), each_at_least(1), distinct)
    networks: int = setting(256, at_least(2))

    @property
    def studied_bonds(self) -> tuple[int, ...]:
        """The bond dimensions of the study, `max_bond` the last."""
        chosen = self.bonds or tuple(self.max_bond // part for part in (8, 4, 2))
        return tuple(sorted({bond for bond in chosen if bond > 0} | {self.max_bond}))


@dataclass(frozen=True)
class ObjectiveConfig(Section):
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
    beta: float = setting(0.0, at_least(0))
    prior: float = setting(0.5, above(0), Rule("below 1", lambda v: v < 1))
    samples: int = setting(64, at_least(2))
    schedule: str = setting("constant")
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class OptimiserConfig(Section):
    """The optax optimiser and its learning rate.

    Attributes:
        name: name of an optax optimiser, as "adam"; or "lbfgs", for energies that are no
            estimates: train.batch_size=0, and no key but `options.memory_size` is used.
        learning_rate: the largest or first learning rate, in radians, above 0.
        schedule: "constant", "cosine", "linear", "exponential", "warmup_cosine",
            "onecycle" or the name of an optax schedule.
        options: further arguments of the optax optimiser.
        schedule_options: further arguments of the schedule.
        clip_norm: largest global gradient norm; 0 is no clipping.

    `hypercircuit.train.optimisers.make_optimiser` checks the names against optax.
    """

    section: ClassVar[str] = "optimiser"
    name: str = setting("adam")
    learning_rate: float = setting(0.1, above(0))
    schedule: str = setting("cosine")
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    schedule_options: dict[str, Any] = field(default_factory=dict, hash=False)
    clip_norm: float = setting(0.0, at_least(0, "0 turns clipping off"))


@dataclass(frozen=True)
class TrainConfig(Section):
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
    steps: int = setting(1500, at_least(1))
    batch_size: int = setting(100, at_least(0, "0 is all the examples"))
    seed: int = setting(0, at_least(0), at_most(2**32 - 1))
    evaluate_every: int = setting(250, at_least(1, "for the end only, set it to train.steps"))
    checkpoint_every: int = setting(250, at_least(1, "for the end only, set it to train.steps"))
    precision: str = setting("float32", one_of("float32", "float64"))


@dataclass(frozen=True)
class DecodeConfig(Section):
    """From the Born distribution to the best network.

    Attributes:
        samples: networks drawn, at least 1.
        beam: width of the search for the most likely network, at least 1.
        final_examples: training examples of the final energy; 0 is all of the training split.
        energy_samples: networks drawn for a final energy that has no exact value, at least 2.
    """

    section: ClassVar[str] = "decode"
    samples: int = setting(100, at_least(1))
    beam: int = setting(16, at_least(1))
    final_examples: int = setting(0, at_least(0, "0 uses the whole training split"))
    energy_samples: int = setting(256, at_least(2))


@dataclass(frozen=True)
class RestartsConfig(Section):
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
    count: int = setting(100, at_least(1))
    depths: tuple[int, ...] = setting(
        (1, 2, 4, 6, 8),
        each_at_least(1),
        distinct,
        Rule("at least one depth", lambda v: len(v) > 0, "depth 1 is the product state"),
    )
    max_iterations: int = setting(500, at_least(1))
    gradient_norm: float = setting(1e-6, at_least(0, "0 runs all iterations"))
    success_distance: float = setting(1e-4, above(0))
    batch: int = setting(50, at_least(1))

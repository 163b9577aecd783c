"""The cumulant energy of networks with hidden layers, by matrix products.

    bits -> mean and variance of z_h -> moments of a_h = activation(z_h) -> outputs' cumulants

The cumulants of the first layer's pre-activations are exact, in every encoding that a neuron can
choose: those of the bits' sum, shifted and stretched. Then every z_h stands for a (nearly) Gaussian
variable, whose activation has moments in closed form (`gaussian`), and a sign neuron is cut halfway
between two points of the lattice on which z_h lies (`lattice`). Neurons, and outputs' biases, are
taken as independent of one another, although a circuit correlates the few bits on either side of a
block's end.

Within a neuron (order "neuron") the choices and outgoing weights are correlated with
the pre-activation through the last few weights, to first order by Stein's identity:

    E[y a(z)] = E[y] E[a] + Cov(y, z) E[a'(z)],    y = (choice's projector) v_c, .. v_c v_d

with exact joint moments of y and exact covariances (`windows`). A free matrix product state, where
bits are correlated at any distance, keeps covariances of y within 16 sites; the cumulants of z are
exact there, too. In order "class" outgoing weights lie far away, and layer follows layer: a form of
independent weights and independent inputs a_j has

    mean = sum_j E[w_j] E[a_j],    variance = Var(sum_j w_j E[a_j]) + sum_j E[w_j^2] Var(a_j),

and units of a deeper layer, which share their inputs, are again taken as independent.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import AnyArray
from ..bnn import Encoding, Network
from ..circuit import Chain, FreeMPS
from ..hamiltonian import LossHamiltonian
from ..hamiltonian.linear import exact_inputs
from ..state import Band, ChainMPS, State, bit_cumulants
from .base import Batch, PreparedEnergy
from .expected import ExpectedLoss, Labels, Outputs, labels
from .gaussian import NearlyNormal
from .lattice import input_cuts, sign_cut
from .linear import LinearOutputs, linear_forms
from .pairs import exact_cumulants
from .site_moments import swept_cumulants
from .windows import JointMoments, Windows, joint_moments, windows_between

if TYPE_CHECKING:
    from .cumulant import Cumulant

_HIGHEST = jax.lax.Precision.HIGHEST
#: Sites within which bits of a free matrix product state count as correlated.
FREE_RANGE = 16


class HiddenBatch(Batch):
    """One batch of examples.

    **Attributes:**

    - `x`: inputs with the bias's, in their own order.
    - `cut`: from where on a sign neuron of the first layer is +1, in every encoding.
    """

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n fan_in"]
    cut: Float[AnyArray, "encodings n"]
    labels: Labels


@dataclasses.dataclass(frozen=True)
class _Setting:
    """Codes of a neuron's choices that mean the same, unless it is off.

    **Attributes:** `encoding` is its number in the layer's list.
    """

    activation: str
    encoding: int
    codes: tuple[int, ...]

    @property
    def indices(self) -> np.ndarray:
        return np.array(self.codes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """A dense layer: its forms, the input of every site of a run, and what follows a run.

    **Attributes:** `encodings` are those that its units can have, with `forms` for each.
    """

    encodings: tuple[Encoding, ...]
    forms: tuple[LinearOutputs, ...]
    columns: np.ndarray
    windows: Windows | None
    settings: tuple[_Setting, ...]

    def of_bits(
        self,
        mps: State,
        probabilities: Float[Array, " n_qubits"],
        bands: tuple[Band, ...],
        x: Float[Array, "n fan_in"],
        order: int,
        variance: Float[Array, "n fan_in"] | None = None,
    ) -> list[tuple[jax.Array, ...]]:
        """The units' cumulants in every encoding.

        **Arguments:**

        - `x`, `variance`: the inputs, or their means and variances if they vary, in their order.
        """
        inputs = x[:, self.columns]
        first = _of_bits(self.forms[0], mps, probabilities, bands, inputs, order)
        every = [first, *(self.forms[0].recoded(first, inputs, form) for form in self.forms[1:])]
        if variance is None:
            return every
        spread = (form.spread(probabilities, variance[:, self.columns]) for form in self.forms)
        return [(each[0], each[1] + more) for each, more in zip(every, spread, strict=True)]


class HiddenCumulantEnergy(PreparedEnergy):
    """See [`hypercircuit.Cumulant`][] and the module's text."""

    site_tensors = True

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        batch_size: int,
        dtype: np.dtype,
        settings: Cumulant,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        network = hamiltonian.network
        self.network, self.settings = network, settings
        self.by_neuron = _by_neuron(network)
        if settings.order > 2 and not self.by_neuron:
            raise ValueError(
                f"order {settings.order} of the cumulants needs one hidden layer in order "
                "'neuron'; use Cumulant(order=2)"
            )
        self.expected = ExpectedLoss(
            hamiltonian.loss, network.n_outputs, settings.n_nodes, settings.n_steps, self.dtype
        )
        last = len(network.layers) - 1
        reach = FREE_RANGE if isinstance(circuit, FreeMPS) else self.circuit.correlation_range
        numbers = range(1) if self.by_neuron else range(last + 1)
        self.layers = [_layer(network, number, self.by_neuron, reach) for number in numbers]
        self.skip = None
        if network.skip:
            assert network.register.skip is not None
            sites = network.register.skip
            encoding = network.layers[-1].encoding
            self.skip = linear_forms(sites, encoding, 1.0), np.argsort(sites[0])
        self.cuts = [
            [sign_cut(network, number, each, positive=False)[0] for each in layer.encodings]
            for number, layer in enumerate(self.layers[1:last], 1)
        ]
        self.output_cut, self.half_step = sign_cut(
            network, last, network.layers[last].encoding, positive=True
        )

    @property
    def cumulant_order(self) -> int:
        return self.settings.order

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> HiddenBatch:
        examples, weights = self.filled(examples, weights)
        data, network = self.hamiltonian.data, self.network
        x = exact_inputs(data, examples)
        if network.layers[0].bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        cuts = [
            input_cuts(data, network, each, x, positive=False)[0]
            for each in self.layers[0].encodings
        ]
        scale = network.logit_scale
        output_cut = np.full(len(x), scale * self.output_cut)
        return HiddenBatch(
            weights,
            x.astype(self.dtype),
            (network.hidden_scale * np.stack(cuts)).astype(self.dtype),
            labels(data.y[examples], network.n_outputs, output_cut, self.dtype),
        )

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, HiddenBatch)
        return self.expected(self.outputs(mps, batch), batch.labels)

    def outputs(self, mps: State, batch: HiddenBatch) -> Outputs:
        """The cumulants of the logits of every example."""
        bits = self._bits(mps)
        follow = self._by_neuron if self.by_neuron else self._by_layer
        cumulants, covariance = follow(mps, batch, *bits)
        if self.skip is not None:
            forms, columns = self.skip
            direct = _of_bits(forms, mps, *bits, batch.x[:, columns], self.settings.order)
            cumulants = tuple(a + b for a, b in zip(cumulants, direct, strict=True))
        scale = self.network.logit_scale
        scaled = tuple(scale**n * each for n, each in enumerate(cumulants, 1))
        if covariance is not None:
            covariance = scale**2 * covariance
        return Outputs(scaled, covariance, scale * self.half_step)

    def _bits(self, mps: State) -> tuple[Float[Array, " n_qubits"], tuple[Band, ...]]:
        order = self.settings.order
        if not isinstance(mps, ChainMPS):
            return exact_cumulants(mps, order)
        if mps.correlation_range is None:
            near = min(FREE_RANGE, mps.n_qubits - 1)
            mps = dataclasses.replace(mps, correlation_range=near)
        return bit_cumulants(mps, order)

    def _by_neuron(
        self,
        mps: State,
        batch: HiddenBatch,
        probabilities: Float[Array, " n_qubits"],
        bands: tuple[Band, ...],
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Neurons are independent: their cumulants add up."""
        (layer,), order = self.layers, self.settings.order
        assert layer.windows is not None
        encoding = self.network.layers[1].encoding
        every = [
            NearlyNormal.of(each)
            for each in layer.of_bits(mps, probabilities, bands, batch.x, order)
        ]
        moments = joint_moments(mps, layer.windows)
        edges = self._edges(layer, batch.x)
        cuts = batch.cut[:, :, None]
        raw = []
        for power in range(1, order + 1):
            total = jnp.zeros((), batch.x.dtype)
            for setting in layer.settings:
                z, cut = every[setting.encoding], cuts[setting.encoding]
                value = z.activation(setting.activation, power, cut)[..., None]
                weights = _weight_powers(moments, setting, encoding, power)
                total = total + value * weights[0]
                if layer.windows.n_weights:
                    slope = z.slope(setting.activation, power, cut) / z.deviation
                    mixed = jnp.einsum("nj,jhc->nhc", edges[setting.encoding], weights[1:])
                    total = total + slope[..., None] * mixed
            raw.append(total)
        cumulants = [each.sum(1) for each in _cumulants_of_moments(raw)]
        covariance: jax.Array | None = None
        if self.expected.needs_covariance:
            covariance = -jnp.einsum("nhc,nhd->ncd", raw[0], raw[0])
            for setting in layer.settings:
                z, cut = every[setting.encoding], cuts[setting.encoding]
                value = z.activation(setting.activation, 2, cut)
                weights = _weight_pairs(moments, setting, encoding)
                covariance = covariance + jnp.einsum("nh,hcd->ncd", value, weights[0])
                if layer.windows.n_weights:
                    slope = z.slope(setting.activation, 2, cut) / z.deviation
                    mixed = edges[setting.encoding][:, :, None] * slope[:, None]
                    covariance = covariance + jnp.einsum("njh,jhcd->ncd", mixed, weights[1:])
        return self._add_biases(cumulants, covariance, probabilities, bands)

    def _add_biases(
        self,
        cumulants: list[jax.Array],
        covariance: jax.Array | None,
        probabilities: jax.Array,
        bands: tuple[Band, ...],
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        dense, sites = self.network.layers[1], self.network.register.weights[1][:, -1]
        if dense.bias:
            step, p = dense.encoding.step, probabilities[sites]
            q = p * (1 - p)
            own = (p + dense.encoding.low / step, q, q * (1 - 2 * p), q * (1 - 6 * q))
            for n in range(len(cumulants)):
                cumulants[n] = cumulants[n] + step ** (n + 1) * own[n]
            pairs = [band for band in bands if band.powers == (1, 1)]
            if covariance is not None and pairs:
                distance = np.abs(sites[:, None] - sites)
                reach = len(pairs[0].values)
                near = (distance > 0) & (distance <= reach)
                gap, later = np.clip(distance, 1, reach) - 1, np.maximum(sites[:, None], sites)
                shared = jnp.where(near, pairs[0].values[gap, later], 0)
                covariance = covariance + step**2 * shared
        return tuple(cumulants), covariance

    def _by_layer(
        self,
        mps: State,
        batch: HiddenBatch,
        probabilities: Float[Array, " n_qubits"],
        bands: tuple[Band, ...],
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Inputs of a layer are independent: mean and variance go from layer to layer."""
        mean = batch.x
        variance: jax.Array | None = None
        covariance: jax.Array | None = None
        for number, layer in enumerate(self.layers):
            every = layer.of_bits(mps, probabilities, bands, mean, 2, variance)
            if number == len(self.layers) - 1:
                if self.expected.needs_covariance:
                    assert variance is not None
                    weights = layer.forms[0].mean_weights(probabilities)
                    covariance = jnp.einsum(
                        "nj,cj,dj->ncd", variance[:, layer.columns], weights, weights
                    )
                return every[0], covariance
            assert layer.windows is not None
            normal = [NearlyNormal.of(each) for each in every]
            moments = joint_moments(mps, layer.windows).codes
            cuts = batch.cut[:, :, None] if number == 0 else self._hidden_cuts(number)
            edges = self._edges(layer, mean)
            raw = []
            for power in (1, 2):
                total = jnp.zeros_like(every[0][0])
                for setting in layer.settings:
                    z, cut = normal[setting.encoding], cuts[setting.encoding]
                    chosen = moments[setting.indices].sum(0)
                    total = total + z.activation(setting.activation, power, cut) * chosen[0]
                    if layer.windows.n_weights:
                        slope = z.slope(setting.activation, power, cut) / z.deviation
                        total = total + slope * (edges[setting.encoding] @ chosen[1:])
                raw.append(total)
            mean, variance = raw[0], raw[1] - raw[0] ** 2
            if self.network.layers[number + 1].bias:
                mean = jnp.pad(mean, ((0, 0), (0, 1)), constant_values=1)
                variance = jnp.pad(variance, ((0, 0), (0, 1)))
        raise AssertionError("the last layer returns")

    def _hidden_cuts(self, number: int) -> list[float]:
        return [self.network.hidden_scale * each for each in self.cuts[number - 1]]

    @staticmethod
    def _edges(layer: _Layer, x: jax.Array) -> list[jax.Array]:
        """The change per bit of the windows' weights in every encoding."""
        assert layer.windows is not None
        inputs = x[:, x.shape[1] - layer.windows.n_weights :]
        return [form.gain * inputs for form in layer.forms]


def _of_bits(
    form: LinearOutputs,
    mps: State,
    probabilities: jax.Array,
    bands: tuple[Band, ...],
    x: jax.Array,
    order: int,
) -> tuple[jax.Array, ...]:
    """The cumulants of forms, by a sweep where bits are correlated at any distance."""
    if isinstance(mps, ChainMPS) and mps.correlation_range is None:
        return swept_cumulants(form, mps, x)
    return form.of_bits(probabilities, bands, x, order)


def _by_neuron(network: Network) -> bool:
    """Whether outgoing weights follow their neuron."""
    if network.n_hidden != 1:
        return False
    incoming, outgoing = network.register.weights
    first, last = incoming.min(), incoming.max()
    if len(incoming) > 1:
        return bool(first < outgoing[:, 0].min() < last)
    # With one hidden neuron both orders are the same chain.
    return True


def _layer(network: Network, number: int, by_neuron: bool, reach: int) -> _Layer:
    register, dense = network.register, network.layers[number]
    sites = register.weights[number]
    columns = np.argsort(sites[0])
    if number == len(network.layers) - 1:
        form = linear_forms(sites, dense.encoding, 1.0)
        return _Layer((dense.encoding,), (form,), columns, None, ())
    own = [
        table
        for choice, table in zip(network.choices, register.choices, strict=True)
        if choice.scope == "neuron" and choice.layer == number
    ]
    choices = np.concatenate([np.zeros((len(sites), 0), int), *own], axis=1)
    outgoing = np.zeros((len(sites), 0), int)
    if by_neuron:
        outgoing = register.weights[1][:, : dense.n_outputs].T
    windows = windows_between(sites, choices, outgoing, reach)
    by_code = network.neuron_settings(number)
    found: dict[tuple[str, Encoding], list[int]] = {}
    for code, each in enumerate(by_code):
        if each.gate:
            found.setdefault((each.activation, each.encoding), []).append(code)
    encodings = tuple(dict.fromkeys(each.encoding for each in by_code))
    settings = tuple(
        _Setting(name, encodings.index(encoding), tuple(codes))
        for (name, encoding), codes in found.items()
    )
    forms = tuple(linear_forms(sites, each, network.hidden_scale) for each in encodings)
    return _Layer(encodings, forms, columns, windows, settings)


def _weight_powers(
    moments: JointMoments, setting: _Setting, encoding: Encoding, power: int
) -> jax.Array:
    """Moments of the setting's projector times ``v_c^power``, (with_weight, neurons, outputs)."""
    codes = moments.codes[setting.indices].sum(0)
    single = moments.single[setting.indices].sum(0)
    low, high = encoding.low**power, encoding.high**power
    return low * codes[..., None] + (high - low) * single


def _weight_pairs(moments: JointMoments, setting: _Setting, encoding: Encoding) -> jax.Array:
    """The same with ``v_c v_d``, (with_weight, neurons, outputs, outputs)."""
    codes = moments.codes[setting.indices].sum(0)
    single = moments.single[setting.indices].sum(0)
    pairs = moments.pairs[setting.indices].sum(0)
    low, step = encoding.low, encoding.step
    sums = single[..., :, None] + single[..., None, :]
    return low**2 * codes[..., None, None] + low * step * sums + step**2 * pairs


def _cumulants_of_moments(raw: list[jax.Array]) -> list[jax.Array]:
    """The first two or four cumulants from raw moments."""
    first, second = raw[0], raw[1]
    found = [first, second - first**2]
    if len(raw) == 4:
        third, fourth = raw[2], raw[3]
        found.append(third - 3 * second * first + 2 * first**3)
        found.append(
            fourth - 4 * third * first - 3 * second**2 + 12 * second * first**2 - 6 * first**4
        )
    return found

"""Independent reference values in plain NumPy: every number by brute force, nothing clever.

Nothing here imports the package under test, and everything is float64 or complex128.

Conventions: site 0 is the leftmost site and the most significant bit of a bitstring, so
amplitude ``k`` of a statevector belongs to the bits of ``k`` written most significant first:

    index k = 0b 1 0 1  <->  site 0 = 1, site 1 = 0, site 2 = 1

Angles are in radians; losses are means over examples, in nats for the logarithmic ones.
"""

import itertools
from collections.abc import Callable

import numpy as np

IDENTITY = np.eye(2, dtype=np.complex128)
PAULI_Y = np.array([[0, -1j], [1j, 0]])
PAULI_Z = np.array([[1, 0], [0, -1]], dtype=np.complex128)
CX = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=np.complex128)
"""CX with the control on the left (more significant) site."""


# ---------------------------------------------------------------- circuit


def rotation(pauli, angle):
    """Return the rotation exp(-i angle P / 2) = cos(angle/2) 1 - i sin(angle/2) P, shape (2, 2)."""
    return np.cos(angle / 2) * IDENTITY - 1j * np.sin(angle / 2) * pauli


def apply_gate(state, gate, first_site, n_qubits):
    """Apply a gate to neighbouring sites: (1 (x) gate (x) 1) state.

    Args:
        state: statevector, shape (2**n_qubits,).
        gate: matrix of shape (2**k, 2**k) that acts on sites first_site .. first_site + k - 1.
        first_site: leftmost site of the gate, counted from 0.
        n_qubits: number of sites.
    """
    gate_dimension = gate.shape[0]
    gate_qubits = gate_dimension.bit_length() - 1
    right_qubits = n_qubits - first_site - gate_qubits
    blocks = state.reshape(2**first_site, gate_dimension, 2**right_qubits)
    return np.einsum("ab,lbr->lar", gate, blocks).reshape(-1)


def brickwork_statevector(angles):
    """Return the state of the brickwork ansatz from |0...0>, shape (2**n_qubits,).

    Layer d = 1..depth applies CX (control = left) to the 1-based pairs (2,3), (4,5), .. for odd d
    and (1,2), (3,4), .. for even d, then Ry(theta), then Rz(phi), on every qubit.

    Args:
        angles: shape (depth, n_qubits, 2), radians; [..., 0] is theta and [..., 1] is phi.
    """
    angles = np.asarray(angles, dtype=np.float64)
    depth, n_qubits, _ = angles.shape
    state = np.zeros(2**n_qubits, dtype=np.complex128)
    state[0] = 1.0
    for layer in range(1, depth + 1):
        for control in range(layer % 2, n_qubits - 1, 2):
            state = apply_gate(state, CX, control, n_qubits)
        for site, (theta, phi) in enumerate(angles[layer - 1]):
            gate = rotation(PAULI_Z, phi) @ rotation(PAULI_Y, theta)
            state = apply_gate(state, gate, site, n_qubits)
    return state


def graph_statevector(angles, layers):
    """Return the state of a circuit on a graph from |0...0>, shape (2**n_qubits,).

    Layer d = 1..depth applies CX on the pairs (control, target) of layers[d - 1] in their order,
    each as a permutation of the amplitudes, then Ry(theta), then Rz(phi), on every qubit.

    Args:
        angles: shape (depth, n_qubits, 1 or 2), radians; [..., 0] is theta and [..., 1] is phi.
        layers: per layer the pairs of sites, counted from 0.
    """
    angles = np.asarray(angles, dtype=np.float64)
    n_qubits = angles.shape[1]
    state = np.zeros(2**n_qubits, dtype=np.complex128)
    state[0] = 1.0
    bits = bits_table(n_qubits).astype(np.int64)
    powers = 2 ** np.arange(n_qubits - 1, -1, -1)
    for own, pairs in zip(angles, layers, strict=True):
        for control, target in pairs:
            flipped = bits.copy()
            flipped[:, target] ^= bits[:, control]
            state = state[flipped @ powers]
        for site, (theta, *phi) in enumerate(own):
            gate = rotation(PAULI_Z, phi[0] if phi else 0.0) @ rotation(PAULI_Y, theta)
            state = apply_gate(state, gate, site, n_qubits)
    return state


def noisy_probabilities(angles, layers, one_qubit, two_qubit, readout=0.0):
    """Return the diagonal of the density matrix of a noisy circuit, shape (2**n_qubits,).

    Every gate is followed by Kraus operators: the identity with probability 1 - q, and each of the
    4^k - 1 other products of Paulis with probability q / (4^k - 1), k = 1 after Ry and Rz and k = 2
    after CX. At the end every bit is flipped with probability `readout`.

    Args:
        angles, layers: as for `graph_statevector`; an angle of size 0 along the last axis is no
            gate and makes no error.
    """
    angles = np.asarray(angles, dtype=np.float64)
    n_qubits = angles.shape[1]
    paulis = [IDENTITY, np.array([[0, 1], [1, 0]], complex), PAULI_Y, PAULI_Z]

    def on(sites, gates):
        """The Kronecker product with `gates` on `sites` and identities elsewhere."""
        full = np.ones((1, 1))
        for site in range(n_qubits):
            own = gates[sites.index(site)] if site in sites else IDENTITY
            full = np.kron(full, own)
        return full

    def cx(control, target):
        zero, one = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
        return on([control], [zero]) + on([control, target], [one, paulis[1]])

    def depolarise(rho, sites, q):
        others = list(itertools.product(paulis, repeat=len(sites)))[1:]
        found = (1 - q) * rho
        for gates in others:
            kraus = np.sqrt(q / len(others)) * on(list(sites), gates)
            found = found + kraus @ rho @ kraus.conj().T
        return found

    rho = np.zeros((2**n_qubits, 2**n_qubits), complex)
    rho[0, 0] = 1
    for own, pairs in zip(angles, layers, strict=True):
        for pair in pairs:
            gate = cx(*pair)
            rho = depolarise(gate @ rho @ gate.T, pair, two_qubit)
        for site, kinds in enumerate(own):
            for pauli, angle in zip((PAULI_Y, PAULI_Z), kinds, strict=False):
                gate = on([site], [rotation(pauli, angle)])
                rho = depolarise(gate @ rho @ gate.conj().T, (site,), one_qubit)
    probabilities = np.diag(rho).real.reshape((2,) * n_qubits)
    for site in range(n_qubits):
        flipped = np.flip(probabilities, site)
        probabilities = (1 - readout) * probabilities + readout * flipped
    return probabilities.reshape(-1)


# ---------------------------------------------------------------- networks


def bits_table(n):
    """Return all bitstrings, uint8, shape (2**n, n); row k is k, most significant bit first."""
    indices = np.arange(2**n)[:, None]
    return ((indices >> np.arange(n - 1, -1, -1)) & 1).astype(np.uint8)


def linear_logits(bits, x, n_outputs, low, high, scale, bias=True):
    """Return the logits z = scale * (W x + b) of every network, shape (m, n_examples, n_outputs).

    Args:
        bits: shape (m, N); output 0's n_inputs weights, then its bias if there is one, then
            output 1's, and so on. N = n_outputs * (n_inputs + bias).
        x: examples, shape (n_examples, n_inputs).
        n_outputs: number of outputs.
        low: value of a weight or bias whose bit is 0.
        high: value of a weight or bias whose bit is 1.
        scale: factor on the logits.
        bias: whether each output has a bias bit after its weights.
    """
    bits = np.asarray(bits)
    x = np.asarray(x, dtype=np.float64)
    n_examples, n_inputs = x.shape
    values = np.where(bits == 1, float(high), float(low))
    block = values.reshape(len(bits), n_outputs, n_inputs + bool(bias))
    logits = np.zeros((len(bits), n_examples, n_outputs))
    for output in range(n_outputs):
        logits[:, :, output] = block[:, output, :n_inputs] @ x.T
        if bias:
            logits[:, :, output] += block[:, output, n_inputs][:, None]
    return scale * logits


ACTIVATIONS: dict[str, Callable] = {
    "sign": lambda z: 1.0 if z >= 0 else -1.0,
    "relu": lambda z: max(z, 0.0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "hardtanh": lambda z: min(1.0, max(-1.0, z)),
}


def network_logits(
    bits,
    x,
    sizes,
    *,
    bias=True,
    encodings=None,
    activation="sign",
    hidden_scale=1.0,
    logit_scale=1.0,
    choices=(),
    skip=False,
    order="class",
):
    """Return the logits of every network, one network and one neuron at a time.

    The bits are read from left to right: first the choices of the whole network, then

    * order "class": layer by layer, output by output: weights, bias, the neuron's choices;
    * order "neuron" (three sizes): hidden neuron by hidden neuron: weights, bias, the neuron's
      choices, its weights to all outputs; then the outputs' biases;

    and last the skip weights, output by output. "-reversed" reads the bits from right to left.

    Args:
        bits: shape (m, N).
        x: examples, shape (n_examples, sizes[0]).
        sizes: of the layers, inputs first.
        bias: whether every neuron and output has a bias bit.
        encodings: (low, high) of every layer; the skip weights have the last layer's.
        choices: dictionaries with the keys ``setting`` ("activation", "encoding", "gate", "skip",
            "logit_scale" or "hidden_scale"), ``options`` (values by code; codes beyond the list
            start again) and ``scope`` ("network" or "neuron", then also ``layer``, 0 if left
            out). A neuron's encoding is that of its incoming weights and its bias.
        skip: whether there are weights from inputs to outputs.
    """
    m, n_layers = len(bits), len(sizes) - 1
    logits = np.zeros((m, len(x), sizes[-1]))
    encodings = list(encodings or [(-1.0, 1.0)] * n_layers)
    has_skip = skip or any(each["setting"] == "skip" for each in choices)
    for number in range(m):
        row = list(bits[number][::-1] if order.endswith("-reversed") else bits[number])
        row = [int(bit) for bit in row]

        def choose(choice, row=row):
            n_bits = int(np.ceil(np.log2(len(choice["options"]))))
            code = 0
            for _ in range(n_bits):
                code = 2 * code + row.pop(0)
            return choice["options"][code % len(choice["options"])]

        settings = {"logit_scale": logit_scale, "hidden_scale": hidden_scale, "skip": skip}
        coded = list(encodings)
        for choice in choices:
            if choice["scope"] == "network":
                value = choose(choice)
                if choice["setting"] == "encoding":
                    coded = [value] * n_layers
                settings[choice["setting"]] = value
        weights = [np.zeros((sizes[k + 1], sizes[k])) for k in range(n_layers)]
        biases = [np.zeros(sizes[k + 1]) for k in range(n_layers)]
        own_pairs = [[coded[k]] * sizes[k + 1] for k in range(n_layers)]
        functions = [[settings.get("activation", activation)] * size for size in sizes[1:-1]]
        gates = [[1.0] * size for size in sizes[1:-1]]

        def own_choices(layer, unit, own=(functions, gates, own_pairs), choose=choose):
            for choice in choices:
                if choice["scope"] == "neuron" and choice.get("layer", 0) == layer:
                    which = ("activation", "gate", "encoding").index(choice["setting"])
                    own[which][layer][unit] = choose(choice)

        def take(layer, row=row, coded=coded):
            return coded[layer][row.pop(0)]

        def incoming(
            layer, unit, row=row, found=(weights, biases, own_pairs), own_choices=own_choices
        ):
            """A neuron's weights and bias, whose values its choices, read afterwards, decide."""
            stored = [row.pop(0) for _ in range(sizes[layer] + bool(bias))]
            if layer < n_layers - 1:
                own_choices(layer, unit)
            values = [found[2][layer][unit][bit] for bit in stored]
            found[0][layer][unit] = values[: sizes[layer]]
            if bias:
                found[1][layer][unit] = values[-1]

        if order.startswith("neuron"):
            for unit in range(sizes[1]):
                incoming(0, unit)
                for output in range(sizes[2]):
                    weights[1][output, unit] = take(1)
            for output in range(sizes[2] if bias else 0):
                biases[1][output] = take(1)
        else:
            for layer in range(n_layers):
                for unit in range(sizes[layer + 1]):
                    incoming(layer, unit)
        direct = np.zeros((sizes[-1], sizes[0]))
        if has_skip:
            for output in range(sizes[-1]):
                direct[output] = [take(n_layers - 1) for _ in range(sizes[0])]
        assert not row, f"{len(row)} bits were left over"
        for example, values in enumerate(np.asarray(x, dtype=np.float64)):
            for layer in range(n_layers - 1):
                z = weights[layer] @ (values if layer == 0 else hidden) + biases[layer]
                hidden = np.array(
                    [
                        gate * ACTIVATIONS[name](settings["hidden_scale"] * each)
                        for each, name, gate in zip(z, functions[layer], gates[layer], strict=True)
                    ]
                )
            z = weights[-1] @ (values if n_layers == 1 else hidden) + biases[-1]
            if settings["skip"]:
                z = z + direct @ values
            logits[number, example] = settings["logit_scale"] * z
    return logits


# ---------------------------------------------------------------- losses


def one_hot(y, n_outputs):
    """Return the labels as rows of the identity matrix, shape (n_examples, n_outputs)."""
    return np.eye(n_outputs)[np.asarray(y, dtype=np.int64)]


def binary_logistic(logits, y):
    """Return the mean of log(1 + exp(-(2y - 1) z)), in nats, shape (...).

    Args:
        logits: shape (..., n_examples, 1).
        y: labels 0 or 1, shape (n_examples,).
    """
    signs = 2.0 * np.asarray(y, dtype=np.float64) - 1.0
    return np.logaddexp(0.0, -signs * _single_output(logits)).mean(axis=-1)


def softmax_cross_entropy(logits, y):
    """Return the mean of log(sum_c exp(z_c)) - z_y, in nats, shape (...).

    Args:
        logits: shape (..., n_examples, n_outputs).
        y: labels 0 .. n_outputs - 1, shape (n_examples,).
    """
    logits = np.asarray(logits, dtype=np.float64)
    largest = logits.max(axis=-1, keepdims=True)
    log_sum = largest[..., 0] + np.log(np.exp(logits - largest).sum(axis=-1))
    chosen = (logits * one_hot(y, logits.shape[-1])).sum(axis=-1)
    return (log_sum - chosen).mean(axis=-1)


def squared_error(logits, y):
    """Return the mean squared error, shape (...).

    Several outputs: sum over outputs of (z - onehot(y))^2. One output: (z - (2y - 1))^2.

    Args:
        logits: shape (..., n_examples, n_outputs).
        y: labels, shape (n_examples,).
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[-1] == 1:
        targets = (2.0 * np.asarray(y, dtype=np.float64) - 1.0)[:, None]
    else:
        targets = one_hot(y, logits.shape[-1])
    return ((logits - targets) ** 2).sum(axis=-1).mean(axis=-1)


def one_vs_rest(function):
    """Return the mean over examples of the sum over outputs of function(z, target).

    The target is 1 for the true class (one output: for label 1) and 0 otherwise.
    """

    def loss(logits, y):
        logits = np.asarray(logits, dtype=np.float64)
        total = np.zeros(logits.shape[:-1])
        for example, label in enumerate(y):
            for output in range(logits.shape[-1]):
                target = label if logits.shape[-1] == 1 else int(label == output)
                total[..., example] += function(logits[..., example, output], target)
        return total.mean(axis=-1)

    return loss


def pairwise_logistic(logits, y):
    """Return the mean of sum_{c != y} log(1 + exp(-(z_y - z_c))), in nats, shape (...)."""
    logits = np.asarray(logits, dtype=np.float64)
    total = np.zeros(logits.shape[:-1])
    for example, label in enumerate(y):
        for other in range(logits.shape[-1]):
            if other != label:
                gap = logits[..., example, label] - logits[..., example, other]
                total[..., example] += np.logaddexp(0, -gap)
    return total.mean(axis=-1)


def zero_one(logits, y):
    """Return the share of examples whose class does not have the largest logit alone.

    One output: label 1 asks for a positive logit, label 0 for one that is not.
    """
    logits = np.asarray(logits, dtype=np.float64)
    wrong = np.zeros(logits.shape[:-1])
    for example, label in enumerate(y):
        z = logits[..., example, :]
        if z.shape[-1] == 1:
            wrong[..., example] = (z[..., 0] > 1e-9) != label
        else:
            others = np.delete(z, label, axis=-1).max(axis=-1)
            wrong[..., example] = z[..., label] <= others + 1e-9
    return wrong.mean(axis=-1)


LOSSES: dict[str, Callable] = {
    "binary_logistic": binary_logistic,
    "softmax_cross_entropy": softmax_cross_entropy,
    "squared_error": squared_error,
    "logistic": one_vs_rest(lambda z, t: np.logaddexp(0, -(2 * t - 1) * z)),
    "sigmoid_squared": one_vs_rest(lambda z, t: (1 / (1 + np.exp(-z)) - t) ** 2),
    "hinge": one_vs_rest(lambda z, t: np.maximum(0, 1 - (2 * t - 1) * z)),
    "squared_hinge": one_vs_rest(lambda z, t: np.maximum(0, 1 - (2 * t - 1) * z) ** 2),
    "pairwise_logistic": pairwise_logistic,
    "zero_one": zero_one,
}


def mean_loss(loss, logits, y):
    """Return the mean over examples of the loss named in ``LOSSES``, shape (...)."""
    return LOSSES[loss](logits, y)


def _single_output(logits):
    """Return logits of shape (..., n_examples, 1) without their last axis."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[-1] != 1:
        raise ValueError(f"binary_logistic needs one output, got {logits.shape[-1]}")
    return logits[..., 0]


# ---------------------------------------------------------------- expectations


def born_probabilities(state):
    """Return the Born distribution abs(<w|psi>)^2, shape (2**N,)."""
    return np.abs(np.asarray(state)) ** 2


def energy(statevector, diagonal):
    """Return <psi| diag(diagonal) |psi> = sum_w abs(<w|psi>)^2 diagonal[w].

    Args:
        statevector: shape (2**N,).
        diagonal: value of the operator on every bitstring, shape (2**N,).
    """
    return np.sum(born_probabilities(statevector) * diagonal)


def pair_probabilities(state, i, j):
    """Return the probability of bit a on site i and bit b on site j as [a, b], shape (2, 2)."""
    probabilities = born_probabilities(state)
    bits = bits_table(len(probabilities).bit_length() - 1)
    table = np.zeros((2, 2))
    for a in (0, 1):
        for b in (0, 1):
            table[a, b] = probabilities[(bits[:, i] == a) & (bits[:, j] == b)].sum()
    return table


def marginals(state):
    """Return <Z_j> of every site, shape (N,); +1 is a certain bit 0 and -1 a certain bit 1."""
    probabilities = born_probabilities(state)
    bits = bits_table(len(probabilities).bit_length() - 1)
    return probabilities @ (1.0 - 2.0 * bits)


def correlations(state):
    """Return the connected correlations <Z_i Z_j> - <Z_i><Z_j>, shape (N, N)."""
    probabilities = born_probabilities(state)
    signs = 1.0 - 2.0 * bits_table(len(probabilities).bit_length() - 1)
    centred = signs - probabilities @ signs
    return centred.T @ (probabilities[:, None] * centred)


def joint_cumulant(probabilities, values, order):
    """Return one of the first four cumulants of a function of the bitstring.

    With m = E[f] and the central moments mu_k = E[(f - m)^k], the cumulants are
    m, mu_2, mu_3 and mu_4 - 3 mu_2^2.

    Args:
        probabilities: probability of every bitstring, shape (2**N,).
        values: f on every bitstring, shape (..., 2**N).
        order: 1, 2, 3 or 4.

    Raises:
        ValueError: if order is not 1, 2, 3 or 4.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    values = np.asarray(values, dtype=np.float64)
    mean = values @ probabilities
    if order == 1:
        return mean
    centred = values - mean[..., None]
    moment = centred**order @ probabilities
    if order < 4:
        return moment
    return moment - 3.0 * (centred**2 @ probabilities) ** 2


def finite_difference_gradient(f, x, eps):
    """Return the central differences (f(x + eps e_k) - f(x - eps e_k)) / (2 eps), shape of x.

    Args:
        f: function of an array like x that returns a real number.
        x: point of any shape.
        eps: half the step, in the unit of x.
    """
    x = np.asarray(x, dtype=np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = eps
        gradient[index] = (f(x + step) - f(x - step)) / (2.0 * eps)
    return gradient


# ---------------------------------------------------------------- truncated states


def truncated_brickwork(angles, max_bond, cutoff=0.0, exact_layers=0):
    """Return the brickwork's truncated state, shape (2**n_qubits,), and what was thrown away.

    Gate by gate with an orthogonality centre: the two sites of every CX are joined, split by an
    SVD, and cut to the largest singular values. Layers are swept in turn from left to right and
    back, the last one from left to right.

    Args:
        angles: as for `brickwork_statevector`.
        max_bond: singular values that are kept at most.
        cutoff: those whose square is below this share of the sum of squares are dropped as well.
        exact_layers: the first layers, which `cutoff` does not apply to.

    Returns:
        The normalised state, and the share of the squared norm that was thrown away in every layer
        at every bond, shape (depth, n_qubits - 1).
    """
    depth, n_qubits, _ = angles.shape
    sites = [np.array([1.0, 0.0], complex).reshape(1, 2, 1) for _ in range(n_qubits)]
    discarded = np.zeros((depth, n_qubits - 1))
    centre = 0

    def to_right(site):
        left, _, right = sites[site].shape
        q, rest = np.linalg.qr(sites[site].reshape(left * 2, right))
        sites[site] = q.reshape(left, 2, -1)
        sites[site + 1] = np.tensordot(rest, sites[site + 1], 1)

    def to_left(site):
        left, _, right = sites[site].shape
        q, rest = np.linalg.qr(sites[site].reshape(left, 2 * right).T)
        sites[site] = q.T.reshape(-1, 2, right)
        sites[site - 1] = np.tensordot(sites[site - 1], rest.T, 1)

    for layer in range(1, depth + 1):
        controls = list(range(layer % 2, n_qubits - 1, 2))
        if (depth - layer) % 2 == 1:
            controls.reverse()
        for control in controls:
            while centre < control:
                to_right(centre)
                centre += 1
            while centre > control:
                to_left(centre)
                centre -= 1
            joined = np.tensordot(sites[control], sites[control + 1], 1)
            left, _, _, right = joined.shape
            joined = np.einsum("abst,lstr->labr", CX.reshape(2, 2, 2, 2), joined)
            u, values, v = np.linalg.svd(joined.reshape(2 * left, 2 * right), full_matrices=False)
            weights = values**2 / np.sum(values**2)
            share = cutoff if layer > exact_layers else 0.0
            rank = max(1, min(max_bond, np.sum(weights >= share)))
            discarded[layer - 1, control] = np.sum(weights[rank:])
            kept = values[:rank] / np.linalg.norm(values[:rank])
            sites[control] = u[:, :rank].reshape(left, 2, rank)
            sites[control + 1] = (kept[:, None] * v[:rank]).reshape(rank, 2, right)
            centre = control + 1
        for site, (theta, phi) in enumerate(angles[layer - 1]):
            gate = rotation(PAULI_Z, phi) @ rotation(PAULI_Y, theta)
            sites[site] = np.einsum("st,ltr->lsr", gate, sites[site])
    state = np.ones((1, 1))
    for tensor in sites:
        state = np.tensordot(state, tensor, 1).reshape(-1, tensor.shape[2])
    return state[:, 0] / np.linalg.norm(state), discarded


def parallel_brickwork(angles, max_bond, exact_layers):
    """Return the state of all pairs of a layer truncated at once, and what was thrown away.

    Right isometries B and the Schmidt values to the left of every pair. The two B of a pair are
    joined and take the CX; the right vectors of that times the Schmidt values, cut to the largest
    singular values, are the new B on the right, the joined tensor projected on them the one on the
    left, and the singular values are those left of the pairs of the next layer.

    Args:
        angles: as for `brickwork_statevector`.
        max_bond: singular values that are kept at most.
        exact_layers: so many layers are made by a statevector, whose bonds must fit `max_bond`.

    Returns:
        The normalised state, shape (2**n_qubits,), and the shares of the squared norm that were
        thrown away, shape (depth, n_qubits - 1).
    """
    depth, n_qubits, _ = angles.shape
    psi = brickwork_statevector(angles[:exact_layers])
    sites, schmidt = [], {0: np.ones(1)}
    rest = psi.reshape(-1, 1)
    for site in reversed(range(n_qubits)):
        right = rest.shape[1]
        u, values, v = np.linalg.svd(rest.reshape(2**site, 2 * right), full_matrices=False)
        rank = max(1, int(np.sum(values > 1e-12)))
        schmidt[site] = values[:rank]
        sites.insert(0, v[:rank].reshape(rank, 2, right))
        rest = u[:, :rank] * values[:rank]
    discarded = np.zeros((depth, n_qubits - 1))
    for layer in range(exact_layers + 1, depth + 1):
        found = {0: np.ones(1)}
        for site in range(layer % 2, n_qubits - 1, 2):
            joined = np.tensordot(sites[site], sites[site + 1], 1)
            left, _, _, right = joined.shape
            joined = np.einsum("abst,lstr->labr", CX.reshape(2, 2, 2, 2), joined)
            joined = joined.reshape(left, 2, 2 * right)
            weighted = np.einsum("l,lsx->lsx", schmidt[site], joined).reshape(2 * left, 2 * right)
            _, values, v = np.linalg.svd(weighted, full_matrices=False)
            weights = values**2 / np.sum(values**2)
            rank = min(max_bond, len(values))
            discarded[layer - 1, site] = np.sum(weights[rank:])
            sites[site] = joined @ v[:rank].conj().T
            sites[site + 1] = v[:rank].reshape(rank, 2, right)
            found[site + 1] = values[:rank] / np.linalg.norm(values[:rank])
        schmidt = found
        for site, (theta, phi) in enumerate(angles[layer - 1]):
            gate = rotation(PAULI_Z, phi) @ rotation(PAULI_Y, theta)
            sites[site] = np.einsum("st,ltr->lsr", gate, sites[site])
    state = np.ones((1, 1))
    for site in sites:
        state = np.tensordot(state, site, 1).reshape(-1, site.shape[2])
    return state[:, 0] / np.linalg.norm(state), discarded

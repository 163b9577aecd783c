"""From the Born distribution to one classical network, its accuracies and its files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PRNGKeyArray, UInt8

from ._files import write_text
from ._shards import Shards
from ._types import Angles, AnyArray
from .bnn import Choice, Network
from .circuit import Ansatz, Chain, Graph
from .data import Dataset, Splits
from .energy import Contraction, EnergyKind, Exact, PreparedEnergy
from .hamiltonian import Loss, LossHamiltonian
from .state import Born, born, joint_probabilities, prepare_state
from .train import Progress, ShardedEnergy, StopSignals, agree_to_stop

_NETWORKS_AT_ONCE = 16
#: Loss and accuracy of every network, and of an ensemble.
_Rows = Float[np.ndarray, "n 2"]
_Vote = Float[np.ndarray, " 2"]


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean loss (the loss's unit) and accuracy on the parts of the data.

    Those of the validation examples are None where none are held out.
    """

    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float
    test_accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """What a trained state holds.

    **Attributes:**

    - `bits`, `log_probability`: the candidate of lowest validation loss (training loss, if no
      validation examples are held out) and the natural log of its Born probability.
    - `best`: its losses and accuracies.
    - `most_likely`: those of the first candidate, the likeliest bitstring found.
    - `sample_mean`: means over the sampled networks.
    - `vote`: the samples' majority vote (its loss is that of the mean logits).
    """

    bits: UInt8[np.ndarray, " n_qubits"]
    log_probability: float
    best: Score
    most_likely: Score
    sample_mean: Score
    vote: Score


def decode(
    circuit: Ansatz,
    params: Angles,
    network: Network,
    loss: Loss,
    splits: Splits,
    key: PRNGKeyArray,
    *,
    samples: int = 100,
    beam: int = 16,
    candidates: UInt8[np.ndarray, "n n_qubits"] | None = None,
    state: Born | None = None,
) -> Decoded:
    """Sample networks, add the likeliest ones, rank them all by validation loss.

    Without held-out validation examples the training loss ranks them.

    **Arguments:**

    - `samples`: networks drawn from the Born distribution.
    - `beam`: width of the beam search for the likeliest network.
    - `candidates`: further bitstrings to rank, such as the best one seen while training.
    - `state`: the Born distribution, such as one with a budget of its own; left out,
      `born(circuit, params)`.
    """
    state = state or born(circuit, params)
    drawn, _ = state.sample(key, samples)
    likeliest, _ = state.most_likely(beam)
    pool = [np.asarray(likeliest[:1]), np.asarray(drawn)]
    if candidates is not None:
        pool.append(np.asarray(candidates, np.uint8))
    bits = np.concatenate(pool)
    chosen = slice(1, 1 + samples)
    train, test = (
        _evaluate(network, loss, bits, part, chosen) for part in (splits.train, splits.test)
    )
    validation = None
    if splits.held_out:
        validation = _evaluate(network, loss, bits, splits.validation, chosen)
    parts = (train, validation, test)
    ranking, _ = train if validation is None else validation
    best = int(ranking[:, 0].argmin())

    def score(pick: Callable[[_Rows, _Vote], np.ndarray]) -> Score:
        values: list[Any] = []
        for part in parts:
            values += [None, None] if part is None else pick(*part).tolist()
        return Score(*values)

    return Decoded(
        bits=bits[best],
        log_probability=float(state.log_probability(bits[best : best + 1])[0]),
        best=score(lambda rows, _: rows[best]),
        most_likely=score(lambda rows, _: rows[0]),
        sample_mean=score(lambda rows, _: rows[chosen].mean(0)),
        vote=score(lambda _, vote: vote),
    )


def score_network(
    network: Network, loss: Loss, bits: UInt8[np.ndarray, " n_qubits"], data: Dataset
) -> tuple[float, float]:
    """The loss and the accuracy of one network."""
    each = score_networks(network, loss, bits[None], data)
    return float(each[0, 0]), float(each[0, 1])


def score_networks(
    network: Network, loss: Loss, bits: UInt8[np.ndarray, "n n_qubits"], data: Dataset
) -> _Rows:
    """The loss and the accuracy of every network."""
    return _evaluate(network, loss, bits, data, slice(0, 1))[0]


def _evaluate(
    network: Network, loss: Loss, bits: np.ndarray, data: Dataset, voters: slice
) -> tuple[_Rows, _Vote]:
    """Loss and accuracy of every network, and of the voters' ensemble."""
    losses, hits = np.zeros(len(bits)), np.zeros(len(bits))
    vote = np.zeros(2)
    voting = np.arange(len(bits))[voters]
    for start in range(0, len(data), 4096):
        x = data.x[start : start + 4096].astype(np.float32, copy=False)
        y = data.y[start : start + 4096]
        ballots = np.zeros((len(y), data.n_classes), np.int32)
        total = np.zeros((len(y), network.n_outputs), np.float32)
        for first in range(0, len(bits), _NETWORKS_AT_ONCE):
            part = slice(first, first + _NETWORKS_AT_ONCE)
            logits = network.logits(bits[part], x, step=data.step)
            predicted = loss.predict(logits)
            losses[part] += loss.value(logits, y).sum(-1)
            hits[part] += (predicted == y).sum(-1)
            for row in np.flatnonzero(np.isin(np.arange(len(bits))[part], voting)):
                ballots[np.arange(len(y)), predicted[row]] += 1
                total += logits[row]
        vote[0] += loss.value(total / len(voting), y).sum()
        vote[1] += (ballots.argmax(1) == y).sum()
    return np.stack([losses, hits], axis=1) / len(data), vote / len(data)


def full_energy(
    prepared: PreparedEnergy,
    params: Angles,
    *,
    progress: Progress | None = None,
    save: str | os.PathLike[str] | None = None,
    stop: StopSignals | None = None,
) -> float | None:
    """The mean energy over all examples of the prepared loss, in one pass.

    **Arguments:**

    - `save`: a file for the sums so far; a pass over the same angles goes on from it.
    - `stop`: checked after every batch; once a signal came, the sums are saved and the result is
      None.
    """
    shards = prepared.shards if isinstance(prepared, ShardedEnergy) else None
    function = prepared.value_function()
    n_examples, size = prepared.hamiltonian.n_examples, prepared.batch_size
    digest = hashlib.sha256(np.asarray(params).tobytes()).hexdigest()
    total, done = _saved_sums(save, digest, n_examples)
    if shards is not None:
        params = shards.replicate(params)
        shards.check_same(
            "the angles",
            digest.encode(),
            "take nodes of one kind (slurm.constraint), which round alike",
        )
        shards.check_same(
            f"the sums of the energy so far in {save}",
            f"{total}{done}".encode(),
            "put the folder on a file system that all processes see",
        )
    n_batches = -(-n_examples // size)
    with (progress or Progress(enabled=False)).start(n_batches, initial=done // size) as display:
        while done < n_examples:
            rows = np.arange(done, min(done + size, n_examples))
            values = np.asarray(function(params, prepared.batch(rows)), np.float64)
            total, done = total + float(values[: len(rows)].sum()), done + len(rows)
            display.update(-(-done // size), energy=total / done)
            stopped = stop is not None and agree_to_stop(stop, shards)
            first = shards is None or shards.first
            if (
                save is not None
                and first
                and (stopped or done % (20 * size) == 0 or done == n_examples)
            ):
                sums = {"angles": digest, "n_examples": n_examples, "done": done, "total": total}
                write_text(save, json.dumps(sums))
            if stopped and done < n_examples:
                return None
    return total / n_examples


def _saved_sums(
    path: str | os.PathLike[str] | None, digest: str, n_examples: int
) -> tuple[float, int]:
    if path is None or not Path(path).exists():
        return 0.0, 0
    sums = json.loads(Path(path).read_text())
    if (sums["angles"], sums["n_examples"]) != (digest, n_examples):
        return 0.0, 0
    return sums["total"], sums["done"]


def exact_energy(
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    params: Angles,
    *,
    batch_size: int = 200,
    progress: Progress | None = None,
    save: str | os.PathLike[str] | None = None,
    stop: StopSignals | None = None,
    kind: EnergyKind | None = None,
    mesh: Mesh | None = None,
) -> float | None:
    """The energy with every product term of every example; its error is the spectral error.

    **Arguments:**

    - `kind`: a strategy without an error of its own; left out, `Exact()` for chains and
      `Contraction()` for graphs.

    - `mesh`: of `device_mesh()`, to share the examples out over devices; `batch_size` is that of
      one device.

    See `full_energy` for the others; None only if `stop` ended it.
    """
    chosen: EnergyKind = kind or (Contraction() if isinstance(circuit, Graph) else Exact())
    chain: Any = circuit
    dtype, n_examples = np.dtype(params.dtype), hamiltonian.n_examples

    def prepare(size: int) -> PreparedEnergy:
        return chosen.prepare(hamiltonian, chain, batch_size=size, dtype=dtype)

    if mesh is None:
        prepared = prepare(min(batch_size, n_examples))
    else:
        shards = Shards(mesh)
        prepared = ShardedEnergy(prepare, min(batch_size * len(shards), n_examples), shards)
    return full_energy(prepared, params, progress=progress, save=save, stop=stop)


def magnetisation_images(
    circuit: Ansatz, params: Angles, network: Network, state: Born | None = None
) -> Float[np.ndarray, "units n_inputs"]:
    """The marginals <Z> of the first layer's weight qubits, unit by unit: +1 is surely bit 0."""
    values = (state or born(circuit, params)).marginals()
    return values[network.register.weights[0][:, : network.n_inputs]]


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenOptions:
    """What a state makes of one architecture choice.

    **Attributes:**

    - `name`: the choice's name.
    - `options`: the options in words.
    - `probabilities`: (copies, options), the Born probability of every option, copy by copy.
    """

    name: str
    options: tuple[str, ...]
    probabilities: Float[np.ndarray, "copies options"]

    def describe(self) -> str:
        """The favourite and its probability, in words; of neurons, how many have each favourite."""
        favourites, n_copies = self.probabilities.argmax(1), len(self.probabilities)
        counts = np.bincount(favourites, minlength=len(self.options))
        order = [each for each in np.argsort(-counts, kind="stable").tolist() if counts[each]]
        probability = self.probabilities.max(1).mean()
        if n_copies == 1:
            return (
                f"the search chose {self.options[order[0]]} for {self.name} "
                f"with probability {probability:.2f}"
            )
        chosen = ", ".join(f"{self.options[each]} for {counts[each]}" for each in order)
        return (
            f"the search chose {self.name} of {n_copies} neurons: {chosen}, "
            f"with probability {probability:.2f} on average"
        )


def architecture(
    circuit: Ansatz, params: Angles, network: Network, state: Born | None = None
) -> list[ChosenOptions]:
    """The distribution over the options of every architecture choice, exact marginals."""
    state = state or born(circuit, params)
    return [
        _chosen_options(choice, state.joint_probabilities(sites))
        for choice, sites in zip(network.choices, network.register.choices, strict=True)
    ]


def architectures(
    circuit: Chain, params: Float[AnyArray, "states depth n_qubits kinds"], network: Network
) -> list[list[ChosenOptions]]:
    """`architecture` of several states of a chain, such as those of restarts."""
    found: list[list[ChosenOptions]] = [[] for _ in params]
    for choice, sites in zip(network.choices, network.register.choices, strict=True):
        probe = functools.partial(jax.lax.map, lambda p, sites=sites: _joint(circuit, p, sites))
        for each, codes in zip(found, jax.jit(probe)(params), strict=True):
            each.append(_chosen_options(choice, codes))
    return found


def _joint(circuit: Chain, params: Angles, sites: np.ndarray) -> jax.Array:
    return joint_probabilities(prepare_state(circuit, params), sites)


def _chosen_options(choice: Choice, codes: AnyArray) -> ChosenOptions:
    """From the distribution (copies, codes) of a choice's bits."""
    codes, n_options = np.asarray(codes, np.float64), len(choice.options)
    table = np.zeros((len(codes), n_options))
    for code in range(codes.shape[1]):
        table[:, code % n_options] += codes[:, code]
    return ChosenOptions(choice.name, tuple(option.label for option in choice.options), table)

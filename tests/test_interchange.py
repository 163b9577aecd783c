"""Chains to and from quimb and HDF5, and quimb as a second opinion on truncation and energies."""

import itertools
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import quimb.tensor as qtn

import oracles
from hypercircuit import Brickwork, exact_mps
from hypercircuit.hamiltonian.mpo import (
    DiagonalMPO,
    compress,
    diagonal_to_quimb,
    load_mpo,
    mpo_from_quimb,
    mpo_to_quimb,
    save_mpo,
)
from hypercircuit.state import load_mps, mps_from_quimb, mps_to_quimb, save_mps
from mpos import random_mpo

BONDS = (1, 2, 3, 5, 4, 2, 1)


@pytest.fixture
def mpo() -> DiagonalMPO:
    return random_mpo(BONDS, seed=4)


def random_state(seed: int, phys: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(a, phys, b) for a, b in itertools.pairwise(BONDS)]
    return [rng.normal(size=s) + 1j * rng.normal(size=s) for s in shapes]


def amplitudes(tensors: list[np.ndarray] | tuple[np.ndarray, ...]) -> np.ndarray:
    state = np.ones((1, 1))
    for tensor in tensors:
        state = np.tensordot(state, tensor, axes=1).reshape(-1, tensor.shape[2])
    return state[:, 0]


def shuffled(network: qtn.TensorNetwork, seed: int) -> qtn.TensorNetwork:
    """The same network, its tensors and their axes in another order."""
    rng = np.random.default_rng(seed)
    network = network.copy()
    for tensor in network:
        tensor.transpose_(*rng.permutation(tensor.inds))
    order = rng.permutation(network.num_tensors)
    other = qtn.TensorNetwork([network.tensors[k] for k in order])
    return other.view_as(type(network), like=network)


# ---------------------------------------------------------------- quimb


def test_operator_in_quimb_has_the_same_matrix(mpo: DiagonalMPO):
    matrix = mpo_to_quimb(mpo).to_dense()
    np.testing.assert_allclose(matrix, np.diag(mpo.diagonal()), rtol=1e-12, atol=1e-12)


def test_diagonal_in_quimb_has_the_same_amplitudes(mpo: DiagonalMPO):
    vector = diagonal_to_quimb(mpo).to_dense()[:, 0]
    np.testing.assert_allclose(vector, mpo.diagonal(), rtol=1e-12)
    # Site by site: the amplitude of one bitstring that is no palindrome.
    assert vector[0b100110] == pytest.approx(mpo.values(np.array([[1, 0, 0, 1, 1, 0]]))[0])


@pytest.mark.parametrize("convert", [mpo_to_quimb, diagonal_to_quimb])
def test_operator_comes_back(mpo: DiagonalMPO, convert):
    back = mpo_from_quimb(convert(mpo))
    assert back.bonds == mpo.bonds
    for found, expected in zip(back.tensors, mpo.tensors, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("convert", [mpo_to_quimb, diagonal_to_quimb])
def test_operator_comes_back_whatever_its_labels_and_order(mpo: DiagonalMPO, convert):
    network = convert(mpo)
    network.site_tag_id = "Q{}"
    if convert is mpo_to_quimb:
        network.upper_ind_id, network.lower_ind_id = "out{}", "z{}"
    else:
        network.site_ind_id = "a{}"
    network.equalize_norms_()
    back = mpo_from_quimb(shuffled(network, 3))
    np.testing.assert_allclose(back.diagonal(), mpo.diagonal(), rtol=1e-10)


@pytest.mark.parametrize("shape", ["lrud", "udrl", "rdlu"])
def test_operator_made_in_quimb(mpo: DiagonalMPO, shape: str):
    arrays = []
    for site, tensor in enumerate(mpo.tensors):
        array = np.einsum("lwr,wu,wd->lrud", tensor, np.eye(2), np.eye(2))
        names = "lrud"
        if site == 0:
            array, names = array[0], "rud"
        if site == 5:
            array, names = array[:, 0], "lud"
        arrays.append(array.transpose([names.index(x) for x in shape if x in names]))
    network = qtn.MatrixProductOperator(arrays, shape=shape)
    np.testing.assert_allclose(mpo_from_quimb(network).diagonal(), mpo.diagonal(), rtol=1e-12)


def test_one_and_two_sites():
    for bonds in ((1, 1), (1, 2, 1)):
        mpo = random_mpo(bonds, seed=2)
        for convert in (mpo_to_quimb, diagonal_to_quimb):
            np.testing.assert_allclose(mpo_from_quimb(convert(mpo)).diagonal(), mpo.diagonal())


def test_product_without_bonds():
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(4, 2))
    tensors = [qtn.Tensor(f, inds=[f"k{j}"], tags=[f"I{j}"]) for j, f in enumerate(factors)]
    network = qtn.TensorNetwork(tensors).view_as(
        qtn.MatrixProductState, site_tag_id="I{}", site_ind_id="k{}", L=4, cyclic=False
    )
    expected = np.einsum("a,b,c,d->abcd", *factors).reshape(-1)
    np.testing.assert_allclose(mpo_from_quimb(network).diagonal(), expected)


def test_off_diagonal_parts_are_refused(mpo: DiagonalMPO):
    network = mpo_to_quimb(mpo)
    array = network[3].data.copy()
    place = network[3].inds.index(network.upper_ind(3)), network[3].inds.index("b3")
    index = [2, 1, 0, 0]
    index[place[0]], index[place[1]] = 1, 0
    array[tuple(index)] = -0.75
    network[3].modify(data=array)
    message = r"not diagonal: the largest .* is -0\.75 at site 3, bits \(1, 0\)"
    with pytest.raises(ValueError, match=message):
        mpo_from_quimb(network)
    dense = network.to_dense()
    share = np.sqrt(1 - (np.diag(dense) ** 2).sum() / (dense**2).sum())
    with pytest.raises(ValueError, match=f"has {share:.3g} of its norm; tolerance is {share / 2}"):
        mpo_from_quimb(network, tolerance=share / 2)
    back = mpo_from_quimb(network, tolerance=1.01 * share)
    np.testing.assert_allclose(back.diagonal(), np.diag(dense), rtol=1e-12)


def test_off_diagonal_entries_that_cancel_are_accepted(mpo: DiagonalMPO):
    """A gauge can hide a diagonal operator behind tensors that are not."""
    rng = np.random.default_rng(6)
    other = [rng.normal(size=(2, 2)) for _ in range(6)]
    arrays = [a.reshape(1, 1, 2, 2) for a in other]
    product = qtn.MatrixProductOperator([arrays[0][0], *arrays[1:-1], arrays[-1][0]])
    network = mpo_to_quimb(mpo).add_MPO(product).add_MPO(-1 * product)
    np.testing.assert_allclose(network.to_dense(), np.diag(mpo.diagonal()), atol=1e-12)
    back = mpo_from_quimb(network, tolerance=1e-6)
    np.testing.assert_allclose(back.diagonal(), mpo.diagonal(), atol=1e-11)


def test_chains_that_do_not_fit(mpo: DiagonalMPO):
    with pytest.raises(ValueError, match="periodic"):
        mpo_from_quimb(qtn.MPO_rand(5, 3, cyclic=True))
    with pytest.raises(ValueError, match=r"site 0 has physical dimensions \(3,\); a qubit has 2"):
        mpo_from_quimb(qtn.MPS_rand_state(4, 2, phys_dim=3))
    with pytest.raises(ValueError, match=r"site 0 has imaginary parts .* real"):
        mpo_from_quimb(mps_to_quimb(random_state(1)))
    with pytest.raises(ValueError, match=r"tolerance must not be negative, got -1"):
        mpo_from_quimb(mpo_to_quimb(mpo), tolerance=-1.0)
    with pytest.raises(TypeError, match=r"MatrixProductState of quimb is needed, got ndarray"):
        mpo_from_quimb(np.eye(4))
    with pytest.raises(TypeError, match=r"got TensorNetwork; make one of arrays"):
        mpo_from_quimb(qtn.TensorNetwork(mpo_to_quimb(mpo).tensors))
    with pytest.raises(TypeError, match=r"a MatrixProductState .* got MatrixProductOperator"):
        mps_from_quimb(mpo_to_quimb(mpo))
    sparse = qtn.MatrixProductOperator([np.ones((1, 2, 2))] * 2, sites=(1, 3), L=5)
    with pytest.raises(ValueError, match=r"no tensor at sites \[0, 2, 4\] of its 5"):
        mpo_from_quimb(sparse)
    network = diagonal_to_quimb(mpo)
    branched = network.copy()
    branched.add_tensor(qtn.Tensor(np.ones(2), inds=["k2"], tags=["I2"]))
    with pytest.raises(ValueError, match="7 tensors at 6 sites; contract"):
        mpo_from_quimb(branched)
    strange = network.copy()
    strange[2].new_ind("elsewhere")
    with pytest.raises(ValueError, match=r"tensor of site 2 has indices .*'elsewhere'"):
        mpo_from_quimb(strange)


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("phys", [2, 3])
def test_state_goes_to_quimb_and_back(phys: int):
    tensors = random_state(5, phys)
    network = mps_to_quimb(tensors)
    np.testing.assert_allclose(network.to_dense()[:, 0], amplitudes(tensors), rtol=1e-12)
    for found, expected in zip(mps_from_quimb(network), tensors, strict=True):
        np.testing.assert_array_equal(found, expected)
    network.site_ind_id, network.site_tag_id = "p{}", "S{}"
    back = mps_from_quimb(shuffled(network, 9))
    np.testing.assert_allclose(amplitudes(back), amplitudes(tensors), rtol=1e-12)


@pytest.mark.parametrize("n_qubits", [5, 6])
def test_circuit_state_in_quimb(n_qubits: int):
    circuit = Brickwork(depth=3)
    angles = np.random.default_rng(n_qubits).uniform(-3, 3, (3, n_qubits, 2))
    state = exact_mps(circuit, jnp.asarray(angles))
    expected = oracles.brickwork_statevector(angles)
    np.testing.assert_allclose(state.to_quimb().to_dense()[:, 0], expected, atol=1e-12)
    back = mps_from_quimb(state.to_quimb())
    np.testing.assert_allclose(amplitudes(back), expected, atol=1e-12)


def test_states_that_are_no_chain():
    tensors = random_state(5)
    with pytest.raises(ValueError, match="at least one tensor, got none"):
        mps_to_quimb([])
    with pytest.raises(ValueError, match=r"site 1 .* with left=2, got shape \(3, 2, 5\)"):
        mps_to_quimb([tensors[0], *tensors[2:]])
    with pytest.raises(ValueError, match="last tensor's right bond must be 1, got 2"):
        mps_to_quimb(tensors[:-1])


# ---------------------------------------------------------------- quimb as the oracle


@pytest.mark.parametrize("max_bond", [1, 2, 3])
def test_quimb_truncates_to_the_same_error(mpo: DiagonalMPO, max_bond: int):
    """In the uniform metric the operator is an ordinary state, and truncated like one."""
    found = compress(mpo, max_bond=max_bond)
    network = diagonal_to_quimb(mpo)
    network.left_canonize()
    network.compress("right", max_bond=max_bond, cutoff=0.0)
    other = mpo_from_quimb(network)
    assert other.max_bond == max_bond
    error = np.sqrt(np.mean((other.diagonal() - mpo.diagonal()) ** 2))
    assert found.error == pytest.approx(error, rel=1e-9)
    np.testing.assert_allclose(found.mpo.diagonal(), other.diagonal(), atol=1e-10)
    operator = mpo_to_quimb(mpo)
    operator.left_canonize()
    operator.compress("right", max_bond=max_bond, cutoff=0.0)
    np.testing.assert_allclose(mpo_from_quimb(operator).diagonal(), other.diagonal(), atol=1e-9)


def test_energy_of_a_circuit_state(mpo: DiagonalMPO):
    angles = np.random.default_rng(2).uniform(-3, 3, (4, 6, 2))
    state = exact_mps(Brickwork(depth=4), jnp.asarray(angles))
    ket = state.to_quimb()
    operator = mpo_to_quimb(mpo)
    bra = ket.H
    qtn.tensor_network_align(bra, operator, ket, inplace=True)
    energy = (bra & operator & ket).contract(optimize="greedy")
    expected = np.abs(oracles.brickwork_statevector(angles)) ** 2 @ mpo.diagonal()
    assert energy == pytest.approx(expected, rel=1e-10)


# ---------------------------------------------------------------- HDF5


def test_operator_in_a_file(tmp_path: Path, mpo: DiagonalMPO):
    path = tmp_path / "operator.h5"
    save_mpo(path, mpo.astype(np.float32), fingerprint="abc")
    assert [each.name for each in tmp_path.iterdir()] == ["operator.h5"]
    for back in (load_mpo(path), load_mpo(path, fingerprint="abc")):
        for found, expected in zip(back.tensors, mpo.tensors, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected.astype(np.float32))
    with pytest.raises(ValueError, match="fingerprint is 'abc', expected 'xyz'"):
        load_mpo(path, fingerprint="xyz")
    with h5py.File(path) as store:
        assert list(store) == [f"site_{site:06d}" for site in range(6)]
        assert store["site_000002"]["tensor"].shape == (3, 2, 5)
        assert store["site_000002"]["tensor"].attrs["axes"] == "left,bit,right"
        assert store.attrs["axes"] == "left,bit,right"
        assert (store.attrs["format_version"], store.attrs["n_sites"]) == (2, 6)


def test_state_in_a_file(tmp_path: Path):
    tensors = random_state(7, 3)
    save_mps(tmp_path / "state.h5", [jnp.asarray(tensor) for tensor in tensors])
    for found, expected in zip(load_mps(tmp_path / "state.h5"), tensors, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_files_of_something_else(tmp_path: Path, mpo: DiagonalMPO):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.h5"):
        load_mpo(tmp_path / "absent.h5")
    text = tmp_path / "text.h5"
    text.write_text("no tensors here")
    with pytest.raises(ValueError, match=r"text\.h5 is not an HDF5 file"):
        load_mpo(text)
    state = tmp_path / "state.h5"
    save_mps(state, random_state(1))
    with pytest.raises(ValueError, match="has kind 'MPS'; expected 'diagonal MPO'"):
        load_mpo(state)
    strange = tmp_path / "strange.h5"
    with h5py.File(strange, "w") as store:
        store["tensor"] = np.ones(3)
    with pytest.raises(ValueError, match="has format 'none'; expected 'hypercircuit chain'"):
        load_mps(strange)
    path = tmp_path / "operator.h5"
    save_mpo(path, mpo)
    with h5py.File(path, "r+") as store:
        store.attrs["format_version"] = 99
    with pytest.raises(ValueError, match="has format_version '99'; expected '2'"):
        load_mpo(path)
    save_mpo(path, mpo)
    with h5py.File(path, "r+") as store:
        del store["site_000003"]
    with pytest.raises(ValueError, match=r"names 6 sites, but holds 5 and lacks site_000003"):
        load_mpo(path)


@pytest.mark.parametrize("length", [700, 8000, -1])
def test_files_that_were_cut_off(tmp_path: Path, mpo: DiagonalMPO, length: int):
    path = tmp_path / "operator.h5"
    save_mpo(path, mpo)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"operator\.h5 is damaged \(.*truncated.*write it again"):
        load_mpo(path)
    save_mps(path, random_state(1))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"operator\.h5 is damaged \(.*truncated.*write it again"):
        load_mps(path)


def test_file_with_a_bad_superblock(tmp_path: Path):
    path = tmp_path / "state.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 50)
    with pytest.raises(ValueError, match=r"state\.h5 is damaged \(.*superblock.*write it again"):
        load_mps(path)


def test_altered_files(tmp_path: Path, mpo: DiagonalMPO):
    path = tmp_path / "operator.h5"
    altered = r"operator\.h5 has been altered since it was written.*write it again"

    def entry(store: h5py.File) -> None:
        store["site_000002/tensor"][1, 0, 4] *= 1 + 1e-15

    def precision(store: h5py.File) -> None:
        tensor = store["site_000002/tensor"][()]
        del store["site_000002/tensor"]
        store["site_000002/tensor"] = tensor.astype(np.float32)

    def fingerprint(store: h5py.File) -> None:
        store.attrs["fingerprint"] = "xyz"

    def digest(store: h5py.File) -> None:
        del store.attrs["sha256"]

    for change in (entry, precision, fingerprint, digest):
        save_mpo(path, mpo, fingerprint="abc")
        with h5py.File(path, "r+") as store:
            change(store)
        with pytest.raises(ValueError, match=altered):
            load_mpo(path)
    save_mpo(path, mpo)
    content = path.read_bytes()
    first = mpo.tensors[0].tobytes()
    assert content.count(first) == 1
    path.write_bytes(content.replace(first, first[:-1] + bytes([first[-1] ^ 1])))
    with pytest.raises(ValueError, match=altered):
        load_mpo(path)
    save_mps(path, random_state(1))
    with h5py.File(path, "r+") as store:
        store["site_000000/tensor"][0, 0, 0] = 1j
    with pytest.raises(ValueError, match=altered):
        load_mps(path)
    with h5py.File(path, "r+") as store:
        del store["site_000001/tensor"]
        store["site_000001"].create_group("tensor")
    with pytest.raises(ValueError, match=r"operator\.h5 is damaged"):
        load_mps(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, mpo: DiagonalMPO):
    path = tmp_path / "state.h5"
    tensors = random_state(1)
    save_mps(path, tensors)
    with pytest.raises(ValueError, match="right bond must be 1"):
        save_mps(path, tensors[:-1])
    with pytest.raises(TypeError):
        save_mps(path, [np.array([[[object()]]])])
    np.testing.assert_array_equal(load_mps(path)[0], tensors[0])


def test_long_chain_in_a_file(tmp_path: Path):
    mpo = DiagonalMPO(tuple(np.full((1, 2, 1), 1.0 + site) for site in range(1200)))
    save_mpo(tmp_path / "long.h5", mpo)
    back = load_mpo(tmp_path / "long.h5")
    assert [tensor[0, 0, 0] for tensor in back.tensors] == list(range(1, 1201))

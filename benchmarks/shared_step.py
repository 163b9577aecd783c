"""One process of a step that several share, pinned to one core; `figures.py` starts them.

    python benchmarks/shared_step.py KIND IMAGES PROCESSES ID COORDINATOR STEPS

Prints the median seconds of a step (the layout of the batch on the host, value and gradient) and
the energy of the last batch.
"""

import os
import statistics
import sys
import time

kind, coordinator = sys.argv[1], sys.argv[5]
size, processes, process, steps = (int(sys.argv[each]) for each in (2, 3, 4, 6))
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[process]})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax  # noqa: E402  (the core and the flags come first)
import numpy as np  # noqa: E402

from hypercircuit.cluster import connect  # noqa: E402

mesh = connect(expected=processes, coordinator=coordinator, process_id=process)

import figures  # noqa: E402

import hypercircuit  # noqa: E402
from hypercircuit._shards import Shards  # noqa: E402
from hypercircuit.train import ShardedEnergy  # noqa: E402

strategy = {"cumulant": hypercircuit.Cumulant(), "exact": hypercircuit.Exact()}[kind]
hamiltonian = figures.softmax_hamiltonian(figures.mnist_images(2000))
circuit = hypercircuit.Brickwork(4)
params = figures.start_params(circuit, hamiltonian.n_qubits)


def prepare(batch_size):
    return strategy.prepare(hamiltonian, circuit, batch_size=batch_size, dtype=np.float32)


if mesh is None:
    energy = prepare(size)
    step = jax.jit(jax.value_and_grad(energy))
else:
    shards = Shards(mesh)
    energy, params = ShardedEnergy(prepare, size, shards), shards.replicate(params)
    step = jax.jit(jax.value_and_grad(energy), out_shardings=shards.replicated)
seconds = []
for number in range(steps + 1):
    begun = time.perf_counter()
    rows = np.arange(number * size, (number + 1) * size) % hamiltonian.n_examples
    value, _ = jax.block_until_ready(step(params, energy.batch(rows)))
    seconds.append(time.perf_counter() - begun)
print(statistics.median(seconds[1:]), float(value))

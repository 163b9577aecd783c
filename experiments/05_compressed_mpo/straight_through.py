"""Straight-through training of the network of config.toml, for comparison.

    python experiments/05_compressed_mpo/straight_through.py [OUT.json]

Real weights are kept behind the binary ones; the gradient of the loss at their signs moves them,
and they are clipped to [-1, 1] (M. Courbariaux et al., arXiv:1602.02830). The network of the lowest
training loss over all steps is kept.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hypercircuit as hc
from hypercircuit.problem import build_problem

CONFIG = Path(__file__).with_name("config.toml")
STEPS, BATCH, RATE = 3000, 500, 0.01


def main() -> None:
    """Train, and print or write the scores."""
    config = hc.load_config(CONFIG)
    problem = build_problem(config)
    train, test = problem.splits.train, problem.splits.test
    scale = config.network.logit_scale
    x, signs = jnp.asarray(with_ones(train.x)), jnp.asarray(2.0 * train.y - 1)
    optimiser = optax.adam(RATE)

    def loss(weights, x, signs):
        return jax.nn.softplus(-signs * scale * (x @ weights)).mean()

    @jax.jit
    def step(latent, state, x, signs, rows):
        gradient = jax.grad(loss)(jnp.where(latent >= 0, 1.0, -1.0), x[rows], signs[rows])
        updates, state = optimiser.update(gradient, state)
        latent = jnp.clip(optax.apply_updates(latent, updates), -1, 1)
        weights = jnp.where(latent >= 0, 1.0, -1.0)
        return latent, state, weights, loss(weights, x, signs)

    rng = np.random.default_rng(0)
    latent = jnp.asarray(rng.uniform(-1, 1, x.shape[1]), jnp.float32)
    state, best = optimiser.init(latent), (np.inf, None)
    begun = time.perf_counter()
    for _ in range(STEPS):
        rows = jnp.asarray(rng.choice(len(signs), BATCH, replace=False))
        latent, state, weights, value = step(latent, state, x, signs, rows)
        if float(value) < best[0]:
            best = (float(value), np.asarray(weights))
    seconds = time.perf_counter() - begun
    accuracies = {
        f"{name}_accuracy": float(((with_ones(part.x) @ best[1] > 0) == part.y).mean())
        for name, part in (("train", train), ("test", test))
    }
    result = {"loss": best[0], "seconds": seconds, "steps": STEPS, "learning_rate": RATE}
    text = json.dumps(result | {"batch_size": BATCH} | accuracies, indent=2)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n")
    print(text)


def with_ones(inputs: np.ndarray) -> np.ndarray:
    """Append the bias's input."""
    return np.concatenate([inputs, np.ones((len(inputs), 1), inputs.dtype)], axis=1)


if __name__ == "__main__":
    main()

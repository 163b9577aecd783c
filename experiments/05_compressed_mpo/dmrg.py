"""quimb's DMRG on the operators of a finished `hypercircuit compile`, with true losses.

    python experiments/05_compressed_mpo/dmrg.py COMPILED RUN [OUT.json]

The operators are truncated to bond 16 first. Near a state: with a penalty on bits that are unlikely
in the trained state RUN, see `hypercircuit.study.trusted_search`, as strong as ten times the
operator's spread over samples of the state per spread of the penalty.
"""

import json
import sys
from pathlib import Path

import numpy as np

import hypercircuit as hc
from hypercircuit.hamiltonian.mpo import around_state, load_compressed
from hypercircuit.problem import build_problem
from hypercircuit.run import marginals_run
from hypercircuit.study import dmrg, truncated, unlikeliness

BOND, STATE_BOND = 16, 8


def main() -> None:
    """Search, and print or write what was found."""
    folder, run = Path(sys.argv[1]), sys.argv[2]
    config = hc.load_config(folder / "config.toml")
    problem = build_problem(config)
    hamiltonian = hc.compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    samples, _ = hc.sample_run(run, 32)
    penalty = unlikeliness(around_state(marginals_run(run)))
    spread = penalty.values(samples).std()
    rows = []
    for name in ("mpo_uniform", "mpo"):
        compressed = load_compressed(folder / f"{name}.npz", hamiltonian)
        (part,) = truncated(compressed, BOND)[0]
        strength = 10 * float(part.mpo.values(samples).std() / spread)
        for where, operator in (("anywhere", part.mpo), ("near", part.mpo + penalty * strength)):
            found = dmrg(operator, STATE_BOND, max_sweeps=8)
            rows.append(
                {
                    "metric": compressed.metric,
                    "where": where,
                    "value": float(part.mpo.values(found.bits[None])[0]),
                    "loss": float(hamiltonian.losses(found.bits[None])[0]),
                    "seconds": found.seconds,
                    "sweeps": len(np.atleast_1d(found.history)),
                }
            )
            print(rows[-1], flush=True)
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

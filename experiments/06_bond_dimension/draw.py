"""Draw the runs of `result_785.json` or `result_7850.json` as `hypercircuit compare` draws a sweep.

    python draw.py RESULTS.json OUT.png [--steps N] [--seed S]

Runs of N steps (100) and seed S (0) against `state.max_bond`, a curve per depth: energies are over
some images that the seed chooses.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from hypercircuit.study import make_groups, plot_against

AXIS, CURVES = "state.max_bond", "circuit.depth"
PANELS = ["energy", "best_loss", "test_accuracy", "entropy_max", "discarded_weight"]
PANELS += ["training_seconds"]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("results", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

rows = []
for run in json.loads(arguments.results.read_text()).values():
    if (run["steps"], run["seed"]) != (arguments.steps, arguments.seed):
        continue
    found = run["diagnostics"] or {}
    rows.append(
        run
        | {
            CURVES: "free" if run["ansatz"] == "FreeMPS" else run["depth"],
            AXIS: run["max_bond"],
            "entropy_max": found.get("max_entropy"),
            "discarded_weight": found.get("discarded_weight") or None,
            "training_seconds": run["seconds"] - run["compile_seconds"],
        }
    )
records = []
for group in make_groups(rows, [CURVES, AXIS]):
    summaries = {name: group.summary(name) for name in PANELS}
    records.append(
        {"settings": dict(group.settings)}
        | {name: dataclasses.asdict(each) for name, each in summaries.items() if each}
    )
plot_against(AXIS, records, arguments.out, unit="nats", distance=1e-4, names=PANELS)

"""Training methods for binary networks side by side: same networks, same data, equal wall time.

Straight-through training, a variational mean field (BayesBiNN), simulated annealing of single bits
and hypercircuit at depth 4 and 1 train the networks of ``baseline_problems.py`` on full MNIST, each
in a process of its own. Set-up (compiling, data, calibration) is timed apart from the loop, which
gets ``--seconds`` of wall time; the network that a method returns is the one of lowest validation
loss. Training losses and accuracies are those of that binary network over all examples.

    python benchmarks/baselines.py --network both --seconds 60 --seeds 1 --out baselines.json \\
        --methods straight-through,bayesbinn,annealing
    python benchmarks/baselines.py --network linear --methods ours --out baselines.json
    python benchmarks/baselines.py --table baselines.json

A later run replaces the rows of what it measures and keeps the others; the last command puts the
table into the README. The methods and their settings are in ``baseline_methods.py``.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

import reporting
from baseline_methods import METHODS, OURS, SETTINGS
from baseline_problems import LOSSES, NETWORKS, load_problem
from reporting import Column

PACKAGES = ("hypercircuit", "jax", "jaxlib", "numpy", "optax")
CHOICES = {name: (name,) for name in METHODS if name not in OURS} | {"ours": OURS}
"""What ``--methods`` takes, and the methods that each name stands for."""
IDENTITY = ("network", "method", "loss", "seconds", "seed")
"""Entries that tell one run from another; rows also have a variant."""
COLUMNS = (
    Column("network", "network"),
    Column("method", "label"),
    Column("trained on", "loss"),
    Column("seeds", "n_seeds"),
    Column("time (s)", "loop_seconds", "{:.0f}"),
    Column("set-up (s)", "setup_seconds", "{:.0f}"),
    Column("steps", "steps", "{:,.0f}"),
    Column("a step is", "step_unit"),
    Column("softmax loss (nats)", "softmax_loss", "{:.4f}"),
    Column("one-vs-rest loss (nats)", "one_vs_rest_loss", "{:.2f}"),
    Column("train %", "train_text"),
    Column("validation %", "validation_text"),
    Column("test %", "test_text"),
)
MEANS = ("loop_seconds", "setup_seconds", "steps", "softmax_loss", "one_vs_rest_loss")
PARTS = ("train", "validation", "test")


# ---------------------------------------------------------------- processes


def run_worker(arguments):
    """Train with one method in this process and write its rows to ``arguments.result``."""
    (network,) = arguments.network
    problem = load_problem(network, arguments.loss)
    settings = SETTINGS[arguments.worker][network]
    rows = METHODS[arguments.worker](problem, arguments.seconds, arguments.seed, settings)
    reporting.write_result(arguments.result, {"rows": rows})


def run_method(network, method, seed, arguments):
    """Train with one method in a new process and return its rows with their origin."""
    origin = {
        "network": network,
        "method": method,
        "loss": arguments.loss,
        "seconds": arguments.seconds,
        "seed": seed,
        "settings": SETTINGS[method][network],
        "commit": reporting.commit(),
        "versions": reporting.versions(PACKAGES),
        "device": reporting.machine(),
        "load_before": reporting.load(),
    }
    command = ["--worker", method, "--network", network, "--loss", arguments.loss]
    command += ["--seconds", str(arguments.seconds), "--seed", str(seed)]
    result = reporting.run_in_process(__file__, command)
    rows = result.pop("rows", [{}])
    if "device" in result:
        result["device"] = f"{result['device']}, {origin['device']}"
    return [origin | result | row | {"load_after": reporting.load()} for row in rows]


def identity(row):
    """Return what tells the run of a row from others."""
    return tuple(row[name] for name in IDENTITY)


def position(row):
    """Return the key by which rows are sorted: network, method and seed."""
    return list(NETWORKS).index(row["network"]), list(METHODS).index(row["method"]), row["seed"]


def run_benchmark(arguments):
    """Measure everything that is asked for, writing all rows after each run; return the rows."""
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    methods = [method for name in arguments.methods for method in CHOICES[name]]
    for network, method, seed in itertools.product(
        arguments.network, methods, range(arguments.seeds)
    ):
        new = run_method(network, method, seed, arguments)
        rows = [row for row in rows if identity(row) != identity(new[0])] + new
        rows.sort(key=position)
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"{network}, {method}, seed {seed}: {new[0]['status']}", file=sys.stderr, flush=True)
    return rows


# ---------------------------------------------------------------- report


def summarise(rows):
    """Return the table's row of one method: means over the seeds, deviations if there are two."""
    shown = dict(rows[0])
    shown["label"] = ", ".join([shown["method"], *filter(None, [shown.get("variant")])])
    shown["n_seeds"] = len(rows)
    for name in MEANS:
        shown[name] = statistics.fmean(row[name] for row in rows)
    for part in PARTS:
        percents = [100 * row[f"{part}_accuracy"] for row in rows]
        text = f"{statistics.fmean(percents):.2f}"
        if len(percents) > 1:
            text += f" ± {statistics.stdev(percents):.2f}"
        shown[f"{part}_text"] = text
    return shown


def to_markdown(rows):
    """Return the rows as one Markdown table, then what failed and where the numbers come from."""
    groups: dict[tuple, list] = {}
    for row in rows:
        if row["status"] == "ok":
            key = (*(row[name] for name in IDENTITY if name != "seed"), row.get("variant"))
            groups.setdefault(key, []).append(row)
    lines = [reporting.to_markdown(COLUMNS, [summarise(group) for group in groups.values()]), ""]
    lines += [
        f"{row['network']}, {row['method']}, seed {row['seed']}: {row['status']}\n"
        for row in rows
        if row["status"] != "ok"
    ]
    origins: dict[str, list] = {}
    for row in rows:
        described = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        line = f"Commit {row['commit']}; {described}; {row['device']}"
        origins.setdefault(line, []).extend([row["load_before"], row["load_after"]])
    for line, loads in origins.items():
        lines.append(f"{line}; load before and after {min(loads):.1f} to {max(loads):.1f}.")
    return "\n".join(lines)


# ---------------------------------------------------------------- command line


def split_names(text, known):
    """Return the names of a comma-separated list, refusing unknown ones."""
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(
                f"must be a comma-separated list of {', '.join(known)}, got {name!r}"
            )
    return names


def parse_arguments():
    """Return the command line; ``--worker``, ``--seed`` and ``--result`` are the script's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=[*NETWORKS, "both"], default="both")
    parser.add_argument("--seconds", type=float, default=60, help="wall time of each training loop")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 .. SEEDS - 1")
    parser.add_argument(
        "--methods",
        type=lambda text: split_names(text, CHOICES),
        default=list(CHOICES),
        metavar="NAME,NAME",
        help=f"of {', '.join(CHOICES)}; default all",
    )
    parser.add_argument("--loss", choices=LOSSES, default="softmax", help="loss to train on")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="add the rows to FILE.json")
    parser.add_argument(
        "--table", type=Path, metavar="FILE.json", help="put its table into the README, no runs"
    )
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.network = list(NETWORKS) if arguments.network == "both" else [arguments.network]
    if arguments.seconds <= 0 or arguments.seeds < 1:
        parser.error("--seconds must be above 0 and --seeds at least 1")
    if arguments.worker or arguments.table:
        return arguments
    if arguments.out is None:
        parser.error("--out FILE.json is needed to keep the results; name a file")
    return arguments


def main():
    """Run one worker, or fill the README from a file of rows, or measure what is asked for."""
    arguments = parse_arguments()
    if arguments.worker:
        run_worker(arguments)
        return
    if arguments.table:
        reporting.write_section("baselines", to_markdown(json.loads(arguments.table.read_text())))
        return
    print(to_markdown(run_benchmark(arguments)))


if __name__ == "__main__":
    main()

"""What `hypercircuit estimate` says beside what `hypercircuit train` then takes.

    python benchmarks/estimates.py [--only NAME ...] [--cpu-time] [--rows FILE.jsonl]

Every case is estimated, trained, and trained again with its programs in the compile cache, in
processes of its own. On a machine that others use, `--cpu-time` replaces the clock of all of them
by the seconds that the process computes on all its cores. A later run with the same file of rows
replaces those of its cases and keeps the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import reporting
from reporting import Column

_SMALL = [
    "data.classes=[0, 1]",
    "data.pixels=binarise",
    "data.downsample=pick",
    "data.rows=[8, 14, 20]",
    "data.columns=[10, 14]",
    "data.n_train=500",
    "decode.samples=10",
    "decode.beam=2",
    "train.batch_size=50",
    "train.steps=400",
    "train.evaluate_every=200",
]
_LINE = [
    "data.n_train=500",
    "decode.samples=10",
    "decode.beam=2",
    "data.classes=[0, 1]",
    "data.pixels=binarise",
    "data.downsample=mean",
    "data.size=[10, 10]",
    "network.outputs=1",
    "loss.kind=logistic",
    "train.batch_size=50",
]
_TRUNCATED = ["state.engine=truncated", "circuit.depth=8", "state.max_bond=6"]
#: Settings of every case.
CASES = {
    "cumulant, 14 qubits": _SMALL,
    "sampled, 14 qubits": [*_SMALL, "energy.kind=sampled"],
    "exact, 14 qubits": [*_SMALL, "energy.kind=exact"],
    "statevector, 14 qubits": [*_SMALL, "energy.kind=statevector", "train.batch_size=0"],
    "contraction on a ring, 7 qubits": [
        *_SMALL,
        "network.outputs=1",
        "loss.kind=logistic",
        "circuit.ansatz=graph",
        "circuit.depth=2",
        "energy.kind=contraction",
    ],
    "cumulant of a truncated state, 14 qubits": [*_SMALL, *_TRUNCATED],
    "cumulant of a truncated state, 101 qubits": [
        *_LINE,
        *_TRUNCATED,
        "train.steps=60",
        "train.evaluate_every=30",
    ],
    "exact of a truncated state, 14 qubits": [
        *_SMALL,
        *_TRUNCATED,
        "energy.kind=exact",
        "train.steps=40",
        "train.evaluate_every=20",
    ],
    "cumulant of a free state, 101 qubits": [
        *_LINE,
        "circuit.ansatz=free-mps",
        "state.max_bond=6",
        "train.steps=60",
        "train.evaluate_every=30",
    ],
    "cumulant, 7,850 qubits": ["train.steps=60", "train.evaluate_every=60"],
}
_COLUMNS = (
    Column("case", "case"),
    Column("estimated (s)", "estimated", "{:.0f}"),
    Column("with cached programs (s)", "cached", "{:.0f}"),
    Column("run (s)", "run", "{:.0f}"),
    Column("again, programs cached (s)", "again", "{:.0f}"),
    Column("a step, estimated (ms)", "step", "{:.1f}", 1e3),
    Column("run (ms)", "run_step", "{:.1f}", 1e3),
    Column("peak, estimated (GB)", "bytes", "{:.2f}", 1e-9),
    Column("run (GB)", "run_bytes", "{:.2f}", 1e-9),
    Column("load", "load", "{:.0f}"),
)
_PROGRAM = """
import resource, sys, time
if sys.argv.pop(1) == "cpu":
    time.perf_counter = time.time = time.process_time  # JAX takes the second
from hypercircuit.cli import main
code = main()
print("PEAK", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
raise SystemExit(code)
"""


def _command(clock: str, *words: str, settings: list[str], folder: Path) -> tuple[str, float]:
    """What a command printed before its peak memory, and that."""
    more = [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"HYPERCIRCUIT_COMPILE_CACHE": str(folder / "programs")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, clock, *words, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} {settings}: {done.stderr}")
    said, _, peak = done.stdout.rpartition("PEAK")
    return said, float(peak)


def measure(case: str, clock: str = "wall") -> dict[str, Any]:
    """Estimate and train one case by the `"wall"` clock or in `"cpu"` seconds."""
    seconds = {"wall": "of the clock", "cpu": "of the cores"}[clock]
    known = reporting.versions(["hypercircuit", "jax", "jaxlib", "numpy", "equinox", "optax"])
    words = ", ".join(f"{package} {version}" for package, version in known.items())
    origin = f"Commit {reporting.commit()}, seconds {seconds}; {words}; {reporting.machine()}."
    row: dict[str, Any] = {"case": case, "load": reporting.load(), "origin": origin}
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), CASES[case]
        said, _ = _command(clock, "estimate", "--json", settings=settings, folder=folder)
        found = json.loads(said)
        start = found["stages"][0]["seconds"]
        row |= {"estimated": found["seconds"] - start, "cached": found["cached_seconds"] - start}
        evaluations = [each for each in found["stages"] if each["name"].endswith("evaluation")]
        row["bytes"] = found["peak_bytes"]
        results = []
        for out in ("run", "again"):
            words = (clock, "train", "--out", out)
            _, peak = _command(*words, settings=settings, folder=folder)
            row.setdefault("run_bytes", peak)
            results.append(json.loads((folder / out / "result.json").read_text()))
        result, again = results
    row |= {"run": result["total_seconds"], "again": again["total_seconds"]}
    row["run_step"] = (result["seconds"] - result["compile_seconds"]) / result["steps"]
    of_evaluations = sum(each["seconds"] for each in evaluations) / result["steps"]
    row["step"] = found["seconds_per_step"] + of_evaluations
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--cpu-time", action="store_true", help="instead of the clock's seconds")
    parser.add_argument("--rows", type=Path, metavar="FILE.jsonl", help="of this run and others")
    options, rows = parser.parse_args(), {}
    if options.rows is not None and options.rows.exists():
        kept = map(json.loads, options.rows.read_text().splitlines())
        rows = {row["case"]: row for row in kept}
    for case in options.only:
        rows[case] = measure(case, "cpu" if options.cpu_time else "wall")
        print(json.dumps(rows[case]), flush=True)
        if options.rows is not None:
            options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    ordered = [rows[case] for case in CASES if case in rows]
    origins = dict.fromkeys(row["origin"] for row in ordered)
    table = reporting.to_markdown(_COLUMNS, ordered)
    reporting.write_section("estimates", "\n".join([table, "", *origins]))


if __name__ == "__main__":
    main()

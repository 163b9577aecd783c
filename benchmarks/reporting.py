"""What the benchmark scripts share: worker processes, origin of a result, tables in the README.

Every problem runs in a process of its own, so that its compile time and peak memory are its own.
A script starts itself with ``--worker NAME --result FILE``; the worker writes JSON to FILE.

    script --- run_in_process ---> script --worker NAME --result FILE --- write_result ---> FILE
"""

import functools
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
README = Path(__file__).resolve().parent / "README.md"
DASH = "-"


class Column(NamedTuple):
    """One column of a Markdown table.

    Attributes:
        heading: its title, with the unit.
        key: the entry of a row that it shows.
        pattern: how the entry is written, such as ``"{:.2f}"``.
        factor: what numbers are multiplied by before they are written.
    """

    heading: str
    key: str
    pattern: str = "{}"
    factor: float = 1.0

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the row's entry as text, or a dash where it is missing."""
        if self.key not in row:
            return DASH
        entry = row[self.key]
        return self.pattern.format(entry if self.factor == 1.0 else entry * self.factor)


def to_markdown(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| " + " | ".join(column.heading for column in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(column.cell(row) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


# ---------------------------------------------------------------- processes


def run_in_process(
    script: str, arguments: Sequence[str], *, timeout: float | None = None
) -> dict[str, Any]:
    """Run a script as a worker and return what it wrote, with its ``status`` added.

    Args:
        script: path of the script.
        arguments: its command line, ``--result`` left out.
        timeout: seconds after which the worker is ended; None is no limit. Imports count.

    Returns:
        The worker's result with ``status`` (``"ok"`` unless the worker says otherwise); only
        ``status`` if it failed, and ``lower_bound_seconds`` with it if the limit ended it.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(Path(script).resolve()), *arguments]
        command += ["--result", str(result)]
        try:
            completed = subprocess.run(
                command, timeout=timeout, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            return {"status": f"did not finish in {timeout:g} s", "lower_bound_seconds": timeout}
        if completed.returncode != 0:
            lines = completed.stderr.strip().splitlines() or ["no message"]
            return {"status": f"failed: {lines[-1]}"}
        return {"status": "ok"} | json.loads(result.read_text())


def write_result(path: str, result: Mapping[str, Any]) -> None:
    """Write a worker's result, with the peak memory of its process in bytes and its device."""
    import jax

    measured = {
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
    }
    Path(path).write_text(json.dumps({**result, **measured}))


# ---------------------------------------------------------------- origin


@functools.cache
def commit() -> str:
    """Return the commit that is checked out, with ``-dirty`` if tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
        return completed.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "no commit"
    return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of Python and of every package that is installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> str:
    """Return the processor and the number of cores that this process may use."""
    model = platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        model = next(models, model)
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


def load() -> float:
    """Return the machine's load averaged over the last minute, in busy processes."""
    return os.getloadavg()[0]


# ---------------------------------------------------------------- README


def write_section(name: str, text: str) -> None:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->`` in the README.

    Raises:
        ValueError: if the README does not have both markers, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = README.read_text()
    before, found_begin, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{README} must have the lines {begin} and {end}, in this order; add them")
    README.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")

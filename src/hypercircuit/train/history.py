"""The record of a training run: one line per step, and one row per evaluation.

Two CSV files, which `pandas.read_csv` and a spreadsheet open, hold it::

    history.csv       step,energy,gradient_norm,seconds,<more, such as kl and beta>
    evaluations.csv   step,<whatever was measured>,...

Energies are in nats per example, seconds are wall time since the run's first
start. Numbers are written with the fewest digits that give back the same float64,
so reading a file restores every value (a NaN as the standard NaN). In a
checkpoint the same columns travel as arrays (`History.to_arrays`), bit for bit.
"""

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float64, Int64, Shaped

HISTORY_FILE = "history.csv"
EVALUATIONS_FILE = "evaluations.csv"
_COLUMNS = ("step", "energy", "gradient_norm", "seconds")
_PREFIX, _MORE = "evaluations/", "more/"


class History:
    """Append-only record of a run; steps only ever grow.

    Arrays that it returns are copies, so nothing recorded can change.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[float | int]] = {name: [] for name in _COLUMNS}
        self._more: dict[str, list[float | int]] = {}
        self._evaluations: dict[str, list[float | int]] = {"step": []}

    def record_step(
        self,
        step: int,
        *,
        energy: float,
        gradient_norm: float,
        seconds: float,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Append one optimiser step.

        Args:
            step: number of updates done, larger than that of the last record.
            energy: of the minibatch, before the update, in nats per example.
            gradient_norm: Euclidean norm of the gradient, before clipping.
            seconds: wall time since the run's first start.
            more: further numbers of the step by name, such as {"kl": 3.1, "beta": 0.01}, as in
                `record_evaluation`.

        Raises:
            ValueError: `step` does not grow, or a name cannot stand in the header of a CSV file
                or is that of another column.
        """
        numbers = {name: _as_number(name, value) for name, value in (more or {}).items()}
        self.record_steps(
            np.asarray([step], dtype=np.int64),
            energy=np.asarray([energy], dtype=np.float64),
            gradient_norm=np.asarray([gradient_norm], dtype=np.float64),
            seconds=np.asarray([seconds], dtype=np.float64),
            more={name: np.asarray([value]) for name, value in numbers.items()},
        )

    def record_steps(
        self,
        step: Shaped[Array | np.ndarray, " _"],
        *,
        energy: Shaped[Array | np.ndarray, " _"],
        gradient_norm: Shaped[Array | np.ndarray, " _"],
        seconds: Shaped[Array | np.ndarray, " _"],
        more: Mapping[str, Shaped[Array | np.ndarray, " _"]] | None = None,
    ) -> None:
        """Append several optimiser steps at once, as a jitted block of steps returns them.

        Args:
            step, energy, gradient_norm, seconds, more: one entry per step, as in `record_step`.

        Raises:
            ValueError: the lengths differ or the steps do not grow.
        """
        columns: dict[str, Any] = dict(
            zip(_COLUMNS, (step, energy, gradient_norm, seconds), strict=True)
        )
        for name, values in (more or {}).items():
            if name in columns:
                raise ValueError(f"more must not name the column {name!r} again; rename it")
            columns[name] = values
        arrays = {name: _as_column(name, values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a record must have equal lengths, got {lengths}")
        _check_growing("step", self._steps["step"], arrays["step"])
        n_before, n_new = len(self), len(arrays["step"])
        for name in arrays:
            if name not in _COLUMNS:
                self._more.setdefault(name, [math.nan] * n_before)
        for name in _COLUMNS:
            self._steps[name].extend(arrays[name].tolist())
        for name, column in self._more.items():
            column.extend(arrays[name].tolist() if name in arrays else [math.nan] * n_new)

    def record_evaluation(self, step: int, values: Mapping[str, ArrayLike]) -> None:
        """Append one evaluation.

        Args:
            step: number of updates done, larger than that of the last evaluation.
            values: measured numbers by name, such as {"energy_exact": 0.41,
                "validation_accuracy": 0.9}. A name that is new is NaN in the
                earlier rows, a name that is left out is NaN in this one.

        Raises:
            ValueError: `step` does not grow, a name is "step" or cannot stand in the
                header of a CSV file, or a value is not one real number.
        """
        numbers = {name: _as_number(name, value) for name, value in values.items()}
        _check_growing("step of an evaluation", self._evaluations["step"], np.asarray([step]))
        n_rows = len(self._evaluations["step"])
        self._evaluations["step"].append(int(step))
        for name in numbers:
            self._evaluations.setdefault(name, [math.nan] * n_rows)
        for name, column in self._evaluations.items():
            if name != "step":
                column.append(numbers.get(name, math.nan))

    def __len__(self) -> int:
        """Return the number of recorded steps."""
        return len(self._steps["step"])

    @property
    def step(self) -> Int64[np.ndarray, " steps"]:
        """Number of updates done, per record."""
        return np.asarray(self._steps["step"], dtype=np.int64)

    @property
    def energy(self) -> Float64[np.ndarray, " steps"]:
        """Energy of the minibatch, in nats per example."""
        return np.asarray(self._steps["energy"], dtype=np.float64)

    @property
    def gradient_norm(self) -> Float64[np.ndarray, " steps"]:
        """Euclidean norm of the gradient."""
        return np.asarray(self._steps["gradient_norm"], dtype=np.float64)

    @property
    def seconds(self) -> Float64[np.ndarray, " steps"]:
        """Wall time since the run's first start."""
        return np.asarray(self._steps["seconds"], dtype=np.float64)

    @property
    def more(self) -> dict[str, Float64[np.ndarray, " steps"]]:
        """Further columns of the steps; NaN where one was not recorded."""
        return {name: np.asarray(column, np.float64) for name, column in self._more.items()}

    @property
    def evaluations(self) -> dict[str, Shaped[np.ndarray, " evaluations"]]:
        """Columns of the evaluations: "step" as int64, all others as float64."""
        return {
            name: np.asarray(column, dtype=np.int64 if name == "step" else np.float64)
            for name, column in self._evaluations.items()
        }

    def to_arrays(self) -> dict[str, Shaped[np.ndarray, " _"]]:
        """Return every column by name.

        Those of the evaluations start with "evaluations/", further ones of the steps with "more/".
        """
        steps = {name: getattr(self, name) for name in _COLUMNS}
        more = {_MORE + name: column for name, column in self.more.items()}
        return steps | more | {_PREFIX + name: each for name, each in self.evaluations.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Shaped[Array | np.ndarray, " _"]]) -> "History":
        """Restore a history from `to_arrays`, bit for bit.

        Raises:
            ValueError: a column is missing, unknown or of another length, or the
                steps do not grow.
        """
        history = cls()
        missing = [name for name in (*_COLUMNS, _PREFIX + "step") if name not in arrays]
        known = (_PREFIX, _MORE)
        unknown = [name for name in arrays if name not in _COLUMNS and not name.startswith(known)]
        if missing or unknown:
            raise ValueError(
                f"arrays must be those of History.to_arrays; missing {missing}, unknown {unknown}"
            )
        history.record_steps(
            arrays["step"],
            energy=arrays["energy"],
            gradient_norm=arrays["gradient_norm"],
            seconds=arrays["seconds"],
            more={
                name.removeprefix(_MORE): column
                for name, column in arrays.items()
                if name.startswith(_MORE)
            },
        )
        steps = _as_column("step", arrays[_PREFIX + "step"])
        _check_growing("step of an evaluation", [], steps)
        for key, values in arrays.items():
            if key.startswith(_PREFIX):
                column = _as_column(key, values)
                if len(column) != len(steps):
                    raise ValueError(
                        f"{key} must have one entry per evaluation, {len(steps)}, "
                        f"got {len(column)}; arrays must be those of History.to_arrays"
                    )
                history._evaluations[key.removeprefix(_PREFIX)] = column.tolist()
        return history

    def save(self, folder: str | Path) -> None:
        """Write `history.csv` and `evaluations.csv`, each complete or not at all.

        Args:
            folder: where to; it is made if it does not exist.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        steps = {name: self._steps[name] for name in _COLUMNS}
        _write_csv(folder / HISTORY_FILE, steps | self._more)
        _write_csv(folder / EVALUATIONS_FILE, self._evaluations)

    @classmethod
    def load(cls, folder: str | Path) -> "History":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is not one of a history; the message has file and line.
        """
        folder = Path(folder)
        columns = _read_csv(folder / HISTORY_FILE)
        if tuple(columns)[: len(_COLUMNS)] != _COLUMNS:
            raise ValueError(
                f"{folder / HISTORY_FILE} must have the columns {', '.join(_COLUMNS)}, got "
                f"{', '.join(columns)}; choose the folder of a run"
            )
        evaluations = _read_csv(folder / EVALUATIONS_FILE)
        steps = {name if name in _COLUMNS else _MORE + name: c for name, c in columns.items()}
        return cls.from_arrays(steps | {_PREFIX + name: c for name, c in evaluations.items()})


def _as_column(name: str, values: Any) -> np.ndarray:
    kind = np.int64 if name.endswith("step") else np.float64
    return np.asarray(values).astype(kind)


def _as_number(name: str, value: Any) -> float:
    if name == "step" or not name or any(mark in name for mark in ',"\r\n'):
        raise ValueError(
            f"values must be named by words without commas, quotes or line breaks, and not "
            f"'step', got {name!r}; rename it"
        )
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "biuf":
        raise ValueError(f"values[{name!r}] must be one real number, got {value!r}; reduce it")
    return float(array)


def _check_growing(what: str, before: list[float | int], new: np.ndarray) -> None:
    steps = np.concatenate([np.asarray(before[-1:], dtype=np.int64), new])
    wrong = np.flatnonzero(np.diff(steps) <= 0)
    if len(wrong):
        raise ValueError(
            f"{what} must be larger than the one before, {steps[wrong[0]]}, got "
            f"{steps[wrong[0] + 1]}; to resume, restore the history of the checkpoint"
        )


def _write_csv(path: Path, columns: Mapping[str, list[float | int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(repr, column) for column in columns.values()), strict=True))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or "step" not in rows[0]:
        raise ValueError(f"{path} must start with a header with 'step'; choose the folder of a run")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, line {number}: must have {len(rows[0])} values, got {len(row)}; "
                "the file was changed or cut off, restore the history from the checkpoint"
            )
    columns = {}
    for index, name in enumerate(rows[0]):
        kind = int if name == "step" else float
        values = []
        for number, row in enumerate(rows[1:], start=2):
            try:
                values.append(kind(row[index]))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: {name} must be a number, got {row[index]!r}; "
                    "the file was changed, restore the history from the checkpoint"
                ) from error
        columns[name] = np.asarray(values, dtype=np.int64 if name == "step" else np.float64)
    return columns

"""Results of many runs in one tidy table: a row a run, a column a quantity.

`tidy` makes rows of one set of columns and of one type per column, `write_table` writes them as
Parquet and CSV, and `flatten` finds the numbers of a result. Columns of a sweep's table:

| column | meaning, unit |
|---|---|
| `member`, `folder` | number and folder of the member |
| `status`, `error` | see `members`; why it is not finished, in words |
| `attempts` | how often it was started |
| `circuit.depth`, ... | every setting of the grid; lists and tables as TOML text |
| `unit` | of energies and losses, such as nats: they are means per example |
| `energy`, `energy_standard_error`, `best_loss`, `best.test_loss`, ... | in that unit |
| `test_accuracy`, `vote.test_accuracy`, ... | shares of the examples, 0 to 1 |
| `best_log_probability`, `kl`, `entropy_max`, ... | in nats |
| `discarded_weight`, `max_discarded` | squared norm that truncations threw away: sum, largest |
| `seconds`, `compile_seconds`, `energy_seconds`, `total_seconds` | wall time: training, its |
| | compilation, the final energy, all of the last attempt |
| `architecture.NAME.OPTION` | probability of an option of an architecture choice |

and every other number of `result.json`, and of `diagnostics.json` under `diagnostics`, under its
name, a point between the names of nested tables; lists are not gathered. What a run has no value of
is null (an empty field in CSV); a quantity that no run has a value of has no column.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from .._files import write_atomically, write_text

Row = dict[str, Any]


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, float | int | bool]:
    """The numbers of a result under their names, those of nested tables joined by points."""
    found: dict[str, float | int | bool] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (bool, int, float)):
            found[f"{prefix}{name}"] = value
    return found


def tidy(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Give every row every column, in order of first appearance, and every column one type.

    Integers beside floats become floats; anything else beside another type becomes text.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {name: _kind([row.get(name) for row in rows]) for name in columns}
    return [
        {name: None if row.get(name) is None else kinds[name](row[name]) for name in columns}
        for row in rows
    ]


def _kind(values: Sequence[Any]) -> type:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        # A column without any value is one of numbers.
        return int if kinds == {int} else float
    return kinds.pop() if kinds in ({bool}, {str}) else str


def write_table(rows: Sequence[Mapping[str, Any]], stem: str | os.PathLike[str]) -> list[Row]:
    """Write `stem`.parquet and `stem`.csv atomically; returns the tidy rows."""
    clean = tidy(rows)
    stem = Path(stem)
    types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    columns = list(clean[0]) if clean else []
    schema = pyarrow.schema(
        [
            (name, types.get(_kind([row[name] for row in clean]), pyarrow.string()))
            for name in columns
        ]
    )
    table = pyarrow.Table.from_pylist(clean, schema=schema)
    write_atomically(
        stem.with_name(stem.name + ".parquet"),
        lambda file: pyarrow.parquet.write_table(table, file),
    )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(clean)
    write_text(stem.with_name(stem.name + ".csv"), text.getvalue())
    return clean

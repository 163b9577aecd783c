"""Grids of settings: from the texts of a command line to the settings of every member of a sweep.

An axis is one setting and the values it takes::

    circuit.depth=2,4,8          values as in TOML, separated by commas
    train.seed=0:10              the integers 0, 1, ..., 9; with a step: 0:10:2
    network.hidden=[],[4],[3,4]  commas between brackets or quotes separate nothing
    loss.kind=softmax,"hinge"    quotes may be left out

The axes of a grid are combined each with each, the last one fastest; zipped axes advance together
and are one axis of the grid, the last. Values stay texts here: the configuration that they are
settings of knows what they mean, and refuses what it does not know.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_RANGE = re.compile(r"([+-]?\d+):([+-]?\d+)(?::([+-]?\d+))?")
_CLOSING = {"[": "]", "{": "}"}
#: Members of one sweep: as many as fit four digits.
MOST_MEMBERS = 10_000
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Axis:
    """One setting, "section.key", and the texts of the values that it takes."""

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """Read "section.key=values".

    **Raises:** `ValueError` for a text without key or values, brackets or quotes that are left
    open, or a range without integers in it.
    """
    key, equals, right = text.partition("=")
    key = ".".join(part.strip() for part in key.split("."))
    if not equals or not key or not right.strip():
        raise ValueError(
            f"an axis is section.key=values, got {text!r}; for example circuit.depth=2,4,8"
        )
    values = tuple(value for item in _items(text, right) for value in _expand(text, item))
    return Axis(key, values)


def _items(text: str, values: str) -> list[str]:
    """Split at commas outside of brackets and quotes."""
    items, start = [], 0
    closing: list[str] = []
    quote, escaped = "", False
    for index, letter in enumerate(values):
        if quote:
            if escaped:
                escaped = False
            elif letter == "\\" and quote == '"':
                escaped = True
            elif letter == quote:
                quote = ""
        elif letter in "\"'" and (closing or not values[start:index].strip()):
            quote = letter
        elif letter in _CLOSING:
            closing.append(_CLOSING[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            items.append(values[start:index].strip())
            start = index + 1
    items.append(values[start:].strip())
    if quote or closing:
        missing = quote or closing[-1]
        raise ValueError(f"{text!r} opens what it does not close; add {missing!r} to it")
    if not all(items):
        raise ValueError(
            f"{text!r} has an empty value; leave the comma out, or write '' for an empty string"
        )
    return items


def _expand(text: str, item: str) -> list[str]:
    match = _RANGE.fullmatch(item)
    if match is None:
        return [item]
    first, end, step = (int(part) if part else 1 for part in match.groups())
    if step == 0:
        raise ValueError(f"{text!r} has a range with step 0; leave the step out for 1")
    numbers = range(first, end, step)
    if not 0 < len(numbers) <= MOST_MEMBERS:
        what = "no" if not numbers else f"{len(numbers)}"
        raise ValueError(
            f"{text!r} has the range {item} with {what} integers in it; first:end:step stops "
            f"before its end, and a sweep has at most {MOST_MEMBERS} members"
        )
    return [str(number) for number in numbers]


def combine(grid: Sequence[Axis], zipped: Sequence[Axis] = ()) -> list[dict[str, str]]:
    """The settings of every member, {key: text}, in order.

    **Raises:** `ValueError` without axes, for a key given twice, a value given twice in `grid`,
    zipped axes of different lengths, or more than `MOST_MEMBERS` members.
    """
    axes = [*grid, *zipped]
    if not axes:
        raise ValueError("a sweep needs at least one axis; for example --grid circuit.depth=2,4,8")
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key} is given twice; put all its values into one axis")
    for axis in grid:
        twice = [value for at, value in enumerate(axis.values) if value in axis.values[:at]]
        if twice:
            raise ValueError(f"{axis.key} has the value {twice[0]} twice; leave one of them out")
    lengths = {axis.key: len(axis.values) for axis in zipped}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"zipped axes advance together and must be of one length, got {lengths}; repeat "
            "values, or use --grid to combine each with each"
        )
    total = next(iter(lengths.values()), 1)
    for axis in grid:
        total *= len(axis.values)
    if total > MOST_MEMBERS:
        raise ValueError(f"a sweep has at most {MOST_MEMBERS} members, got {total}; split it")
    rows = [[{axis.key: value} for value in axis.values] for axis in grid]
    if zipped:
        length = len(zipped[0].values)
        rows.append([{axis.key: axis.values[at] for axis in zipped} for at in range(length)])
    return [
        {key: value for part in parts for key, value in part.items()}
        for parts in itertools.product(*rows)
    ]


def member_folders(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A folder name for every member: its number, and its settings as far as they fit.

    `0003-depth4-seed1`; with the section in front of a key that two sections have.
    """
    keys = list(settings[0])
    last = [key.rpartition(".")[2] for key in keys]
    words = {
        key: name if last.count(name) == 1 else key.replace(".", "_")
        for key, name in zip(keys, last, strict=True)
    }
    folders = []
    for number, chosen in enumerate(settings):
        parts = [words[key] + _plain(value) for key, value in chosen.items()]
        folders.append(f"{number:04d}-{'-'.join(parts)}"[:_LONGEST_NAME].rstrip("-._"))
    return folders


def _plain(value: str) -> str:
    """A value in letters that every file system takes; of a path the last part."""
    name = value.strip("\"'").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9.+_-]+", "_", name).strip("_")

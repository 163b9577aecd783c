"""Values: what a key may hold, and from what TOML gives to what a field holds."""

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field
from difflib import get_close_matches
from typing import Any, NamedTuple

import tomli_w


class ConfigError(ValueError):
    """A configuration that cannot be run: the message says which key, and the remedy."""


class Rule(NamedTuple):
    """What a value must be beyond its type; `fix` may be left empty."""

    text: str
    holds: Callable[[Any], bool]
    fix: str = ""
    choices: tuple[Any, ...] = ()


def one_of(*choices: Any) -> Rule:
    text = "one of " + ", ".join(repr(choice) for choice in choices)
    return Rule(text, lambda value: value in choices, "", choices)


def at_least(minimum: float | int, fix: str = "") -> Rule:
    return Rule(f"at least {minimum}", lambda value: value >= minimum, fix)


def at_most(maximum: float | int, fix: str = "") -> Rule:
    return Rule(f"at most {maximum}", lambda value: value <= maximum, fix)


def above(minimum: float | int, fix: str = "") -> Rule:
    return Rule(f"above {minimum}", lambda value: value > minimum, fix)


def each_one_of(*choices: Any) -> Rule:
    """For a single value and for a list of them."""
    text = "one of " + ", ".join(repr(choice) for choice in choices) + ", or a list of them"
    return Rule(text, lambda v: all(item in choices for item in _items(v)), "", choices)


def _items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def nearest_choice(rule: Rule, value: Any) -> str | None:
    """The choice of a rule that is nearest to the value, or to the first wrong one of a list."""
    wrong = [str(item) for item in _items(value) if item not in rule.choices]
    near = get_close_matches(wrong[0], [str(choice) for choice in rule.choices], n=1)
    return near[0] if near else None


def each_at_least(minimum: int) -> Rule:
    return Rule(f"integers of at least {minimum}", lambda v: all(item >= minimum for item in v))


distinct = Rule("distinct values", lambda v: len(set(v)) == len(v), "leave repetitions out")


def setting(default: Any, *rules: Rule) -> Any:
    return field(default=default, metadata={"rules": rules})


def refuse(key: str, rule: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"{key} must be {rule}, got {value!r}; {fix}")


def suggest(name: str, known: Sequence[str]) -> str:
    """Return 'did you mean ...?' for a near name, else the list of known names."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def convert(key: str, value: object, kind: Any, example: object) -> Any:
    """Return `value` as `kind`: integers become floats, lists become tuples, tables are copied."""
    fix = f"for example {key} = {to_text(example)}"
    if isinstance(kind, types.UnionType):
        single, several = typing.get_args(kind)
        return convert(key, value, several if isinstance(value, (list, tuple)) else single, example)
    if typing.get_origin(kind) is tuple:
        return _convert_list(key, value, kind, fix)
    if typing.get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise refuse(key, "a table", value, f"for example {key} = {{ name = 0.5 }}")
        return plain(key, value)
    if kind is bool:
        if not isinstance(value, bool):
            raise refuse(key, "true or false", value, fix)
        return value
    if kind is str:
        if not isinstance(value, str):
            raise refuse(key, "a string", value, "put it between quotes")
        return value
    if kind is int:
        if isinstance(value, float) and value.is_integer():
            fix = f"write {int(value)}"
        if not isinstance(value, int) or isinstance(value, bool):
            raise refuse(key, "an integer", value, fix)
        return value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise refuse(key, "a finite number", value, fix)
    return float(value)


#: What lists hold, in words, and an example of one.
_NOUNS: Mapping[Any, tuple[str, Any]] = {
    int: ("integers", 0),
    float: ("numbers", 0.5),
    str: ("strings", "a"),
    tuple[int, int]: ("pairs of integers", (0, 1)),
}


def _convert_list(key: str, value: object, kind: Any, fix: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if typing.get_origin(kinds[0]) is dict:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, Mapping) for v in value):
            raise refuse(key, "a list of tables", value, f"write [[{key}]] above each")
        return tuple(plain(f"{key}[{index}]", item) for index, item in enumerate(value))
    length = None if kinds[-1] is Ellipsis else len(kinds)
    noun, one = _NOUNS[kinds[0]]
    rule = f"a list of {noun}" if length is None else f"a list of {length} {noun}"
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
        if length is None:
            some = "[[0, 1], [1, 2]]" if isinstance(one, tuple) else "[0, 1]"
            fix = f"for example {key} = {some}"
        raise refuse(key, rule, value, fix)
    return tuple(
        convert(f"{key}[{index}]", item, kinds[0], one) for index, item in enumerate(value)
    )


def plain(key: str, value: object) -> Any:
    """Return a copy of a free value of strings, numbers, booleans, lists and tables."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise refuse(key, "a table with strings as names", value, f"quote {name!r}")
        return {name: plain(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(f"{key}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, (str, bool, int, float)):
        return value
    rule = "a string, number, boolean, list or table"
    raise refuse(key, rule, value, "TOML has no other value that an option can take")


def to_text(value: object) -> str:
    """Return a value as TOML on one line, for messages."""
    text = tomli_w.dumps({"v": value}).removeprefix("v = ")
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]")


def fold_lists(toml: str, width: int = 100) -> str:
    """The text that `tomli_w` wrote, with the lists on one line that fit there."""
    lines, folded = toml.splitlines(), []
    at = 0
    while at < len(lines):
        line = lines[at]
        # Line breaks in strings are escaped: what ends with a bracket opens a list.
        if line.endswith("["):
            indent = line[: len(line) - len(line.lstrip())]
            closing = (f"{indent}]", f"{indent}],")
            end = next(later for later in range(at, len(lines)) if lines[later] in closing)
            joined = line + _joined(lines[at + 1 : end + 1])
            if len(joined) <= width:
                line, at = joined, end
        folded.append(line)
        at += 1
    return "".join(f"{line}\n" for line in folded)


def _joined(lines: list[str]) -> str:
    """The items of a list and its end, without a comma after the last one."""
    text = ""
    for line in lines:
        item = line.strip()
        if item.startswith("]"):
            text = text.removesuffix(", ")
        text += item + (" " if item.endswith(",") else "")
    return text.removesuffix(" ")


def default_of(spec: Field) -> Any:
    if spec.default_factory is not MISSING:
        return spec.default_factory()
    return spec.default

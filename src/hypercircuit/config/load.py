"""Reading a configuration: file, profile and overrides, one layer over the other."""

import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .config import Config, build, check_key, check_layer, section_class
from .sections import check_value
from .values import ConfigError


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    profile: str | None = None,
) -> Config:
    """Read a configuration file and apply a profile and overrides to it.

    Args:
        path: TOML file; None is the embedded main job.
        overrides: "section.key=value" each, the value as in TOML; quotes may be left
            out (`data.pixels=binarise`). One entry of a table of options is
            "optimiser.options.b1=0.8". A later override wins. `data.path` also replaces
            `data.source` and `data.n_points` of the file, and `data.source` its `data.path`
            and `data.n_classes`.
        profile: name of a table [profiles.NAME] of the file, such as "smoke".

    Returns:
        The resolved configuration; a relative `data.path` is taken from the current
        directory and made absolute.

    Raises:
        ConfigError: the file is missing or is not TOML; a section, key or profile is
            unknown (the message has the nearest known name); a value has the wrong
            type or range; or two values contradict each other.
    """
    table = {} if path is None else _read_toml(Path(path))
    profiles = table.pop("profiles", {})
    if not isinstance(profiles, dict):
        raise ConfigError(
            f"{path}: profiles must be a table, got {profiles!r}; write [profiles.NAME]"
        )
    layers = [check_layer(table, f"{path}: ")] if path is not None else []
    checked = {
        name: check_layer(values, f"{path}: in profiles.{name}: ")
        for name, values in profiles.items()
    }
    if profile is not None:
        layers.append(_choose_profile(checked, profile, path))
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        _replace_source(merged, layer.get("data", {}))
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    over: dict[str, dict[str, Any]] = {}
    for override in overrides:
        _apply_override(over, merged, override)
    _replace_source(merged, over.get("data", {}))
    for section, values in over.items():
        merged.setdefault(section, {}).update(values)
    if merged.get("data", {}).get("path"):
        merged["data"]["path"] = _absolute(merged["data"]["path"])
    return build(merged)


def _replace_source(merged: dict[str, dict[str, Any]], layer: Mapping[str, Any]) -> None:
    """Where examples come from is `path` or `source`: a later layer's one replaces the other."""
    for new, old in (("path", ("source", "n_points")), ("source", ("path", "n_classes"))):
        if layer.get(new):
            for key in old:
                merged.get("data", {}).pop(key, None)


def _absolute(path: str) -> str:
    """Return `path` from the root; a link that is its last part is kept for its name."""
    relative = Path(path)
    if relative.is_absolute():
        return path
    if relative.name in ("", ".."):
        return str(relative.resolve())
    return str(relative.parent.resolve() / relative.name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"config file {str(path)!r} does not exist; check the path, or leave it out for the "
            "embedded main job"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config file {str(path)!r} must be a readable text file, got {error}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {str(path)!r} must be TOML: {error}") from error


def _choose_profile(
    profiles: Mapping[str, dict[str, dict[str, Any]]], name: str, path: str | Path | None
) -> dict[str, dict[str, Any]]:
    if path is None:
        raise ConfigError(f"profile {name!r} needs a config file that defines it; give the file")
    if name not in profiles:
        known = ", ".join(repr(known) for known in profiles) or "none"
        raise ConfigError(f"unknown profile {name!r} of {path}; the file has: {known}")
    return profiles[name]


def _apply_override(
    over: dict[str, dict[str, Any]], below: Mapping[str, dict[str, Any]], override: str
) -> None:
    """Set one value of `over`, which the caller owns, from "section.key=value".

    An entry of a table is added to the table of `over`, or else of the layers `below`.
    """
    try:
        left, equals, text = override.partition("=")
        names = [name.strip() for name in left.split(".")]
        if not equals or len(names) < 2 or not all(names):
            raise ConfigError("an override is section.key=value, as train.steps=1000")
        section = section_class(names[0])
        check_key(section, names[1])
        kind = typing.get_type_hints(section)[names[1]]
        value = _parse_value(text.strip(), is_string=kind is str)
        if len(names) > 2:
            if typing.get_origin(kind) is not dict or len(names) > 3:
                raise ConfigError(
                    f"{left.strip()} is not a key; did you mean '{'.'.join(names[:2])}'?"
                )
            table = below.get(names[0], {}).get(names[1], {})
            value = {**over.get(names[0], {}).get(names[1], table), names[2]: value}
        over.setdefault(names[0], {})[names[1]] = check_value(section, names[1], value)
    except ConfigError as error:
        raise ConfigError(f"override {override!r}: {error}") from None


def _parse_value(text: str, *, is_string: bool) -> object:
    """Return the TOML value of `text`; what is not one, or not wanted as one, is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"the value must be TOML: {error}") from error
        return text
    if set(parsed) != {"value"}:
        return text
    value = parsed["value"]
    return text if is_string and not isinstance(value, str) else value

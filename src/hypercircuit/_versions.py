"""The versions and the code that a result depends on."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import jax

_PACKAGES = ("hypercircuit", "jax", "jaxlib", "optax", "equinox", "numpy", "quimb", "cotengra")


def package_versions() -> dict[str, str]:
    """The versions that a result depends on; occupies no device."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"python": platform.python_version()}


def versions() -> dict[str, str]:
    """The versions that a result depends on, and the device it was made on."""
    return package_versions() | {"device": jax.devices()[0].device_kind}


@functools.cache
def source_digest() -> str:
    """A fingerprint of this package's source files: another one is other code."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def changed_versions(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """What differs between two records of versions, in words."""
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"{name} {there.get(name, 'unknown')} (now {here.get(name, 'unknown')})"
        for name in names
        if there.get(name) != here.get(name)
    ]

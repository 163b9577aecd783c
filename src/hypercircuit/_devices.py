"""The devices that JAX finds, or what to do where it finds none."""

from __future__ import annotations

import os

import jax

REMEDY = "unset JAX_PLATFORMS, or install the plugin of the platform that it names"


class NoDevices(ValueError):
    """JAX finds no device; the message says why."""


def find_devices() -> list[jax.Device]:
    """This process's devices; the first call starts JAX's backends.

    **Raises:** `NoDevices`, as where JAX_PLATFORMS names a platform whose plugin is missing.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        # Without any plugin JAX ends in an assertion, which has no words.
        said = str(error).partition("\n")[0] or "no plugin is installed for these platforms"
        named = os.environ.get("JAX_PLATFORMS")
        raise NoDevices(f"{said} (JAX_PLATFORMS={named})" if named else said) from None


def require_devices() -> None:
    """Refuse to compute without a device.

    **Raises:** `NoDevices`, with the remedy.
    """
    try:
        find_devices()
    except NoDevices as error:
        raise NoDevices(f"JAX finds no device: {error}; {REMEDY}") from None

"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file of a temporary name beside `path`, then rename it."""
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))

"""HTML that is well-formed by construction: text is escaped, only `Html` goes in as it is."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Any

_VOID = frozenset(("meta", "img", "br"))
#: What HTML allows nowhere, not even as a character reference.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is HTML already."""


Content = str | Html
#: What stands for a value that there is none of.
NONE = Html("&ndash;")
SPACE = "\u202f"


def clean(words: str) -> str:
    """The words, with a mark in place of every character that no page may hold."""
    return _FORBIDDEN.sub("\ufffd", words)


def text(value: object) -> Html:
    """The value as text, escaped; `Html` as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(clean(str(value)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """The parts one after the other, escaped where they are not HTML."""
    return Html(between.join(text(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes that are None or False are left out, those that are True stand alone.

    A trailing underscore of an attribute's name goes (`class_`), others become hyphens.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.removesuffix("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{text(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def number(value: Any, form: str = ".6g", unit: str = "") -> Html:
    """A number as people read it, and exactly in the element's `value`; a dash for None.

    **Arguments:**

    - `form`: a format such as ".6g" or ".2%".
    """
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text(value)
    shown = f"{value:,}" if isinstance(value, int) and form == ".6g" else format(value, form)
    if not math.isfinite(value):
        shown = {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    shown = shown.replace(",", SPACE).removesuffix("%") + ("\u00a0%" if form.endswith("%") else "")
    shown = shown.replace("-", "\u2212")
    return join([tag("data", shown, value=repr(value)), f"\u00a0{unit}" if unit else ""])


def slug(words: str) -> str:
    """An id made of the letters and digits of some words."""
    return re.sub("[^a-z0-9]+", "-", words.lower()).strip("-") or "x"

"""Figures inside a page: SVG with the page's colours and font, and PNG images.

A figure is drawn by matplotlib as for a file. Then its greys become the page's text colour (so that
it is readable on a dark page), its ids become unique on the page, and everything that depends on
the time, points outside the page or names no part of the drawing goes: the same numbers give the
same bytes.
"""

from __future__ import annotations

import base64
import io
import re
import tempfile
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from jaxtyping import Float

from .html import Html, tag

Draw = Callable[[Path], object]

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "savefig.transparent": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "path.simplify": True,
}
_PIXELS_PER_POINT = 96 / 72
#: Narrower than this share of its natural width a figure is not shown; its box scrolls instead.
_LEAST_WIDTH = 0.74


def inline_svg(draw: Draw, *, name: str, label: str) -> Html:
    """What a plotting function draws into a file, as an element of the page.

    **Arguments:**

    - `draw`: called with the path of a file to write.
    - `name`: unique on the page; its ids start with it.
    - `label`: what the figure shows, for those who do not see it.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        matplotlib.rc_context(),
        warnings.catch_warnings(),
    ):
        # The browser's fonts draw the text.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": name})
        file = Path(folder) / "figure.svg"
        draw(file)
        root = ElementTree.parse(file).getroot()
    _strip(root, name)
    points = float(root.attrib["width"].removesuffix("pt"))
    natural = points * _PIXELS_PER_POINT
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": view,
            "role": "img",
            "aria-label": label,
            "style": f"min-width:{_LEAST_WIDTH * natural:.0f}px;max-width:{1.5 * natural:.0f}px",
        }
    )
    return Html(ElementTree.tostring(root, encoding="unicode").replace("\n", ""))


def is_wide(figure: Html) -> bool:
    """Whether a figure of `inline_svg` wants the page's whole width."""
    found = re.match(r'<svg viewBox="0 0 ([\d.]+)', figure)
    return found is not None and float(found[1]) > 470


def _strip(root: ElementTree.Element, name: str) -> None:
    """Keep the drawing alone, with the ids that it uses, made unique."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    used: set[str] = set()
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        link = element.attrib.pop(_LINK, None)
        if link is not None:
            used.add(link.removeprefix("#"))
            element.attrib["href"] = f"#{name}-{link.removeprefix('#')}"
        for key, value in element.attrib.items():
            for found in re.findall(r"url\(#([^)]+)\)", value):
                used.add(found)
            element.attrib[key] = _recoloured(re.sub(r"url\(#", f"url(#{name}-", value))
    for element in root.iter():
        here = element.attrib.pop("id", None)
        if here in used:
            element.attrib["id"] = f"{name}-{here}"


def _recoloured(style: str) -> str:
    """Greys as shares of the page's text colour; matplotlib's black is all of it."""

    def replace(found: re.Match[str]) -> str:
        share = 1 - int(found[2], 16) / 255
        if share == 0:
            return f"{found[1]}: none"
        opacity = f"; {found[1]}-opacity: {share:.2f}" if share < 1 else ""
        return f"{found[1]}: currentColor{opacity}"

    return re.sub(r"\b(fill|stroke): #([0-9a-f]{2})\2\2\b", replace, style)


def image(
    values: Float[np.ndarray, "rows columns"],
    *,
    colours: str,
    reach: float,
    alt: str,
) -> Html:
    """An image of values from -`reach` to `reach`, one pixel a value, in the page itself."""
    file = io.BytesIO()
    nothing: dict[Any, Any] = {"Software": None}
    matplotlib.image.imsave(
        file,
        values,
        vmin=-reach,
        vmax=reach,
        cmap=colours,
        format="png",
        metadata=nothing,
    )
    rows, columns = values.shape
    data = base64.b64encode(file.getvalue()).decode()
    source = f"data:image/png;base64,{data}"
    return tag("img", src=source, alt=alt, width=columns, height=rows)

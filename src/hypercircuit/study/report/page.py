"""The parts of a page, and the page as one HTML file that needs nothing else.

A page is a heading with the status, notes on what is missing, and sections. A section is made of
facts (names and values), results with their five kinds of error, figures with their numbers, and
tables. Ids come from names and are counted where they repeat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from .html import Content, Html, join, slug, tag, text
from .svg import Draw, inline_svg, is_wide

#: Rows of the table of numbers under a figure.
MOST_ROWS = 60
NOT_USED = "not used"


@dataclasses.dataclass(frozen=True)
class Errors:
    """The five kinds of error of one result, which are never merged; `NOT_USED` by default."""

    spectral: Content = NOT_USED
    compression: Content = NOT_USED
    truncation: Content = NOT_USED
    sampling: Content = NOT_USED
    check: Content = NOT_USED


ERROR_NAMES = {
    "spectral": "spectral",
    "compression": "MPO compression",
    "truncation": "MPS truncation",
    "sampling": "sampling",
    "check": "optimisation, check",
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own."""

    title: str
    blocks: Sequence[Html]


@dataclasses.dataclass
class Page:
    """A page in the making.

    **Attributes:**

    - `title`, `kind`, `status`: such as a folder's name, "training run" and "finished".
    - `lead`: a sentence below the heading.
    - `notes`: what is missing or not as it should be.
    """

    title: str
    kind: str
    status: str
    lead: Content = ""
    message: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    sections: list[Section] = dataclasses.field(default_factory=list)
    _ids: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, title: str, *blocks: Html | None) -> None:
        """Add a section with those of the blocks that there are, if any."""
        kept = [block for block in blocks if block]
        if kept:
            self.sections.append(Section(title, kept))

    def unique(self, name: str) -> str:
        """An id that no other part of the page has."""
        base = slug(name)
        count = self._ids[base] = self._ids.get(base, 0) + 1
        return base if count == 1 else self.unique(f"{base}-{count}")

    def figure(
        self,
        draw: Draw,
        title: str,
        caption: Content,
        *,
        source: str,
        columns: Mapping[str, Any] | None = None,
        numbers: Html | None = None,
    ) -> Html:
        """A figure with its caption, the file that its numbers come from, and the numbers.

        **Arguments:**

        - `columns`: what is drawn, as columns of equal length; or
        - `numbers`: a table of it.
        """
        name = self.unique(f"figure {title}")
        drawn = inline_svg(draw, name=name, label=title)
        under = numbers
        if columns is not None:
            under = column_table(columns)
        described = tag(
            "figcaption",
            tag("strong", title),
            " ",
            caption,
            " ",
            tag("span", "Source: ", tag("code", source), class_="source"),
        )
        return tag(
            "figure",
            tag("div", drawn, class_="scroll", tabindex=0, role="group", aria_label=title),
            described,
            details("Numbers", under) if under else "",
            id=name,
            class_="wide" if is_wide(drawn) else None,
        )

    def render(self) -> str:
        """The page as HTML."""
        style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
        ids = [self.unique(f"section {section.title}") for section in self.sections]
        links = join(
            tag("li", tag("a", section.title, href=f"#{name}"))
            for name, section in zip(ids, self.sections, strict=True)
        )
        body = [
            tag(
                "header",
                tag("p", f"hypercircuit: {self.kind}", class_="kind"),
                tag("h1", self.title),
                _banner(self.status, self.message),
                tag("p", self.lead, class_="lead") if self.lead else "",
                *(tag("p", note, class_="note", role="note") for note in self.notes),
            ),
            tag("nav", tag("ul", links), aria_label="Sections") if links else "",
            tag(
                "main",
                *(
                    tag(
                        "section",
                        tag("h2", section.title),
                        *section.blocks,
                        id=name,
                    )
                    for name, section in zip(ids, self.sections, strict=True)
                ),
            ),
        ]
        head = [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", f"{self.title}: {self.kind}, {self.status}"),
            tag("style", Html(style)),
        ]
        page = tag("html", tag("head", *head), tag("body", *body), lang="en")
        return f"<!DOCTYPE html>\n{page}\n"


def _banner(status: str, message: str) -> Html:
    good = status == "finished"
    words: list[object] = [tag("strong", status)]
    if message:
        words += [tag("pre", message) if "\n" in message else f": {message}"]
    return tag("div", *words, class_=f"status {'good' if good else 'bad'}", role="status")


def facts(entries: Iterable[tuple[str, object]]) -> Html:
    """Names and values, in as many columns as there is room for; None entries are left out."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in entries
            if value is not None
        ),
        class_="facts",
    )


def result(name: str, value: Content, about: Content, errors: Errors) -> Html:
    """A result with every kind of error beside it."""
    kinds = join(
        tag(
            "div",
            tag("dt", words),
            tag("dd", getattr(errors, kind)),
            class_="unused" if getattr(errors, kind) == NOT_USED else None,
        )
        for kind, words in ERROR_NAMES.items()
    )
    return tag(
        "article",
        tag("h3", name),
        tag("p", value, class_="value"),
        tag("p", about, class_="about") if about else "",
        tag("dl", kinds, class_="errors", aria_label=f"Errors of: {name}"),
        class_="result",
    )


def grid(blocks: Iterable[Html | None], name: str = "figures") -> Html | None:
    """Blocks beside each other where there is room; None without any."""
    kept = [block for block in blocks if block]
    return tag("div", *kept, class_=name) if kept else None


def paragraph(*parts: object) -> Html:
    """A paragraph."""
    return tag("p", *parts)


def details(
    summary: Content, *content: object, name: str | None = None, printed: bool = True
) -> Html:
    """Content that is folded until it is asked for, and open in print if it is `printed`."""
    kind = None if printed else "unprinted"
    return tag("details", tag("summary", summary), *content, id=name, class_=kind)


def preformatted(content: str) -> Html:
    """Text as it stands in a file."""
    return tag("pre", content, tabindex=0)


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, caption: Content = ""
) -> Html:
    """A table that scrolls sideways in a box of its own; the first column names the rows."""
    body = join(
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell) for cell in row[1:]),
        )
        for row in rows
    )
    whole = tag(
        "table",
        tag("caption", caption) if caption else "",
        tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in header))),
        tag("tbody", body),
    )
    label = text(caption) if caption and not isinstance(caption, Html) else "Table"
    return tag("div", whole, class_="scroll", tabindex=0, role="group", aria_label=Html(label))


def column_table(columns: Mapping[str, Any]) -> Html:
    """Columns of equal length as a table of at most `MOST_ROWS` rows, evenly chosen."""
    arrays = [np.asarray(column) for column in columns.values()]
    length = len(arrays[0])
    chosen = np.arange(length)
    caption = ""
    if length > MOST_ROWS:
        chosen = np.unique(np.linspace(0, length - 1, MOST_ROWS).round().astype(int))
        caption = f"{len(chosen)} of {length} rows, evenly chosen"
    rows = ([_cell(array[at]) for array in arrays] for at in chosen)
    return table(list(columns), rows, caption=caption)


def _cell(value: Any) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return "" if value is None else value

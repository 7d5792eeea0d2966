"""The HTML page of a report: sections, and the parts that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vtr.pages import environment, render


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    name: str  # for links to it
    title: str
    parts: Sequence[Markup]  # a section without parts is not shown


def part(name: str, /, *values: Any, **more: Any) -> Markup:
    """Returns a part of a page; `parts.html` has the kinds, such as "table", and what they take."""
    return Markup(getattr(environment().get_template("parts.html").module, name)(*values, **more))


def page(title: str, sections: Iterable[Section], *, lead: Markup | None = None) -> bytes:
    """Returns a whole page; `lead` stands below its heading."""
    kept = [section for section in sections if section.parts]
    return render("page.html", title=title, lead=lead or Markup(), sections=kept)

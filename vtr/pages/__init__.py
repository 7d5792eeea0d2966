"""HTML from templates: what is put into a page is nobody's markup unless a template says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vtr.foreign import shown

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> Environment:
    """Returns the templates of `vtr/pages/templates`.

    Every value is made one line without control characters (`shown`) and is then escaped; a name
    that a template lacks is an error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("vtr.pages"),
        autoescape=lambda name: not str(name).endswith(".md"),
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else shown(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    return made


def render(name: str, /, **values: object) -> bytes:
    """Returns a whole document by the name of its template, such as "page.html"."""
    return environment().get_template(name).render(**values).encode("utf-8", "replace")


def source(name: str) -> str:
    """Returns a file of the templates as it is, such as "chart.css"."""
    env = environment()
    assert env.loader is not None
    return env.loader.get_source(env, name)[0]


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

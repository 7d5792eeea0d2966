"""HTML from templates: what is put into a page is nobody's markup unless a template says so."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

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

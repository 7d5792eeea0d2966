"""Charts as figures of an HTML page."""

from __future__ import annotations

from markupsafe import Markup

from vtr.charts import kinds, marks
from vtr.pages import environment


def draw(chart: kinds.Chart) -> Markup:
    """Returns a chart as an HTML figure; the page has the rules of chart.css and page.css."""
    return Markup(
        environment()
        .get_template("chart.html")
        .render(
            chart=chart,
            kind=type(chart).__name__,
            names=kinds.series_names(chart),
            kinds=kinds,
            marks=marks,
        )
    )

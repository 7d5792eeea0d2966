"""Charts: what a picture needs of the machine, and where its marks and letters are."""

import io
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from resvg_py import svg_to_bytes

from vtr.charts import html, marks
from vtr.charts.drawing import FONTS, Drawing, width_of
from vtr.charts.files import draw
from vtr.charts.kinds import Chart, DotChart, Head, Histogram, LineChart, Point, Scatter, Series

HEAD = Head("chart", "Title of a chart", "A note: N = 10, † marks few queries.", "x (s)", "y (%)")
finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


def curve(*values: float, from_zero: bool = False) -> LineChart:
    places = tuple((float(n), value, None, None) for n, value in enumerate(values))
    return LineChart(HEAD, (("loss", places),), is_even=False, from_zero=from_zero)


def texts(markup: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", markup)


def test_a_picture_is_the_same_on_a_machine_without_fonts() -> None:
    drawing = Drawing(200)
    words = "Écran «ß» Ωж 12.5 † … ≥ →"
    drawing.text(10, 20, words, kind="ink bold")
    drawing.text(10, 40, words)
    drawing.height = 50
    fonts = [str(path) for path in FONTS.values()]
    svg = drawing.svg().decode()
    bare = svg_to_bytes(svg_string=svg, zoom=2, font_files=fonts, skip_system_fonts=True)
    assert bytes(bare) == drawing.png()
    picture = Image.open(io.BytesIO(drawing.png())).convert("L")
    for top in (10, 60):  # both lines are written to their ends
        box = picture.crop((300, top, 380, top + 36)).getextrema()
        assert box[0] < 128


def test_digits_are_of_one_width() -> None:
    for bold in (False, True):
        assert len({width_of(digit, 100, bold=bold) for digit in "0123456789"}) == 1


@given(st.lists(finite, min_size=1, max_size=30), st.booleans())
def test_every_value_of_a_line_lies_within_its_axis(values: list[float], from_zero: bool) -> None:
    values = [abs(value) for value in values] if from_zero else values
    ticks = marks._upright(values, from_zero=from_zero)
    span = ticks[-1] - ticks[0]
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= min(values) + 1e-9 * span
    assert max(values) - 1e-9 * span <= ticks[-1]


def test_a_curve_has_ticks_on_both_axes_and_none_between_epochs() -> None:
    shown = texts(marks.plane(curve(1.19, 0.9, 0.7, 0.55, 0.5, 0.42, 0.21)))
    assert {"0.2", "0.4", "0.6", "0.8", "1", "1.2"} <= set(shown)
    assert [text for text in shown if "." not in text] == ["1", "0", "1", "2", "3", "4", "5", "6"]
    assert texts(marks.plane(curve(3.0, 3.0))).count("0.5") == 0  # no half epochs


def test_a_long_training_is_a_line_without_markers() -> None:
    assert marks.plane(curve(*range(20))).count("<path") == 20
    assert "<path" not in marks.plane(curve(*range(200)))


CHARTS: list[Chart] = [
    DotChart(HEAD, (Series("a", (Point("R@1", 12.5, 10, 15, 20),)),) * 2),
    Histogram(HEAD, (0.0, 0.5, 1.0), (("a", (3, 1)), ("b", (1, 2))), (0.3, 0.6)),
    curve(3, 2, 1),
    Scatter(HEAD, (("a", ((0.0, 1.0),)), ("b", ((2.0, 3.0),)))),
]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: type(chart).__name__)
def test_page_and_file_have_the_same_marks(chart: Chart) -> None:
    page, file = html.draw(chart), draw(chart, kind="svg").decode()
    for kind in ("path", "circle", "line", "title"):
        ours, theirs = (re.findall(rf"<{kind}\b[^>]*>", text) for text in (page, file))
        rules = ['<line class="grid" x1="0" x2="100%" y1="0" y2="0"/>']  # between rows of a file
        assert ours == [mark for mark in theirs if mark not in rules]
    assert set(texts(page)) <= set(texts(file))
    root = ElementTree.fromstring(file)
    assert (root.get("width"), root.get("viewBox", "")[:8]) == ("860", "0 0 860 ")


def test_means_are_written_beside_their_lines() -> None:
    words = re.findall(r'text-anchor="(\w+)">(0\.\d)</text></g>', marks.plane(CHARTS[1]))  # type: ignore[arg-type]
    assert words == [("end", "0.3"), ("start", "0.6")]


@pytest.mark.parametrize("count", [2, 7, 8, 59])
def test_rows_carry_names_where_there_are_more_than_colours(count: int) -> None:
    """The demo's page has 59: nobody finds one of them again in a legend."""
    names = [f"result {n}" for n in range(count)]
    points = (Point("R@1", 12.5, 10, 15, 20), Point("R@5", 30.0, 20, 40, 20))
    page = html.draw(DotChart(HEAD, tuple(Series(name, points) for name in names)))
    assert ('<ul class="legend">' in page) == (count <= 7)
    rows = re.findall(r'<td class="whose faint"><bdi>(.*?)</bdi>', page)
    assert rows == (names * 2 if count > 7 else [])

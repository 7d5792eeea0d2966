"""Samplers applied to a dense store afterwards; the study and the contact sheet."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Corners, run_app, write_clip
from PIL import Image

import vtr
from vtr.api.stores import open_store
from vtr.datasets.base import Video
from vtr.errors import ConfigError, StoreError
from vtr.extract.pipeline import extract
from vtr.extract.sample import FrameRequest
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.extract.sheet import Sheet, SheetRow, draw_html, draw_png
from vtr.extract.study import (
    largest_gap,
    measure_costs,
    open_dense,
    repetition,
    spacing_variation,
    study,
)
from vtr.extract.study_plot import BETTER, NEITHER, WORSE, Column, StudyPicture, draw_study, verdict
from vtr.features import FeatureStore
from vtr.workspace import Workspace


def jumping_squares(num_frames: int, seed: int) -> Iterator[np.ndarray]:
    """Pictures that change now and then, so that every sampler has something to see."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    for _ in range(num_frames):
        if rng.random() < 0.3:
            top, left = rng.integers(0, 32), rng.integers(0, 48)
            picture[top : top + 16, left : left + 16] = rng.integers(0, 255, 3)
        yield picture


def write_squares(path: Path, num_frames: int, seed: int) -> Video:
    write_clip(path, jumping_squares(num_frames, seed), fps=10, options={"threads": "1"})
    return Video(path.name, path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("choose")
    videos = [
        write_squares(folder / f"{n}.mp4", count, n) for n, count in enumerate([40, 3, 1, 75])
    ]
    made = {}
    for name, samplers, more in (
        ("dense", "dense", {}),
        ("bare", "dense", {"thumbnails": False}),
        ("all", "all", {}),
    ):
        made[name] = folder / name
        settings = ExtractSettings(
            samplers=parse_samplers(samplers), num_frames=6, candidate_fps=None, workers=2, **more
        )
        report = extract([(video, None) for video in videos], made[name], Corners(), settings)
        assert report.ok == 4
    return made


def test_choosing_later_is_choosing_at_once(stores: dict[str, Path]) -> None:
    """Every sampler, from the dense store and from a decode of its own: the same frames."""
    labels = FeatureStore(stores["all"]).spec.samplers
    assert {"motion", "scene", "diversity", "hybrid", "shot"} <= set(labels)
    for label in labels:
        at_once = FeatureStore(stores["all"], sampler=label)
        later = vtr.FeatureStore(stores["dense"], sampler=label, frames=6)
        assert later.sampler == label
        assert later.ids == at_once.ids
        for video_id in at_once:
            np.testing.assert_array_equal(
                later[video_id].pts_seconds, at_once[video_id].pts_seconds, err_msg=label
            )
            np.testing.assert_array_equal(later[video_id].frames, at_once[video_id].frames)
        packed, wanted = later.packed(), at_once.packed()
        np.testing.assert_array_equal(packed.frames, wanted.frames)
        np.testing.assert_array_equal(packed.offsets, wanted.offsets)


def test_a_dense_store_opens_through_any_sampler(stores: dict[str, Path]) -> None:
    opened = vtr.FeatureStore(stores["dense"], sampler="scene:threshold=20", frames=6)
    assert opened.sampler == "scene:threshold=20.0"
    assert [len(found.frames) for found in opened.values()][1:3] == [3, 1]
    assert len(vtr.FeatureStore(stores["dense"], sampler="uniform")["3.mp4"].frames) == 12
    assert vtr.FeatureStore(stores["all"], sampler="motion", frames=6).sampler == "motion"
    for name, sampler, frames, message in (
        ("dense", "unifrm", None, "no sampler named 'unifrm'. Did you mean 'uniform'"),
        ("dense", "head,tail", None, "must be a single sampler"),
        ("bare", "motion", 6, "holds no thumbnails. Extract with --sampler dense without"),
        ("all", "motion", 5, "sampler 'motion' with 5 frames needs all candidates"),
        ("all", "embedding-diversity", 6, "Extract with --sampler dense once"),
        ("all", "unifrm", None, "no selection in .* named 'unifrm'"),
    ):
        with pytest.raises(ConfigError, match=message):
            vtr.FeatureStore(stores[name], sampler=sampler, frames=frames)


@pytest.mark.parametrize("frames", [0, -1, 2.5, "8"])
def test_a_budget_that_is_none_is_refused(stores: dict[str, Path], frames: Any) -> None:
    with pytest.raises(ConfigError, match="; it must be a whole number, 1 or more"):
        vtr.FeatureStore(stores["dense"], sampler="uniform", frames=frames)


def test_inspect_says_that_any_sampler_applies(stores: dict[str, Path]) -> None:
    said = {
        name: " ".join(run_app("inspect", folder).stdout.split()) for name, folder in stores.items()
    }
    assert "; any other with --sampler NAME, without the videos" in said["dense"]
    assert "; any other that compares no pictures" in said["bare"]
    assert "any other" not in said["all"]


def test_embedding_diversity_needs_no_thumbnails(stores: dict[str, Path]) -> None:
    store = vtr.FeatureStore(stores["bare"], sampler="embedding-diversity", frames=6)
    assert [len(store[i].frames) for i in store] == [6, 3, 1, 6]


def test_study_without_thumbnails_says_how_to_get_them(stores: dict[str, Path]) -> None:
    bare = open_dense(FeatureStore(stores["bare"]))
    figures, _ = study(bare, parse_samplers("uniform,segment"), 6)
    assert [figure.sampler for figure in figures] == ["uniform", "segment"]
    with pytest.raises(ConfigError, match=r"holds no thumbnails\. Extract with --sampler dense"):
        study(bare, parse_samplers("uniform,scene"), 6)


def test_study_figures(stores: dict[str, Path]) -> None:
    dense = open_dense(FeatureStore(stores["dense"]))
    figures, chosen = study(dense, parse_samplers("uniform,head,dense"), 6)
    by_name = {figure.sampler: figure for figure in figures}
    assert by_name["uniform"].frames_per_video == (6 + 3 + 1 + 6) / 4
    assert by_name["dense"].content_coverage == pytest.approx(1.0, abs=1e-5)
    assert by_name["uniform"].content_coverage > by_name["head"].content_coverage
    assert by_name["head"].largest_gap > by_name["uniform"].largest_gap
    assert by_name["dense"].spacing_variation == pytest.approx(0.0, abs=1e-9)
    assert chosen["head"]["0.mp4"].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="a study of samplers needs all candidates"):
        open_dense(FeatureStore(stores["all"]))


def test_of_a_store_in_which_all_failed_nothing_is_asked(build_store: Callable[..., Path]) -> None:
    """A study divided by no candidates; embedding anew told to extract what was extracted."""
    store = FeatureStore(build_store([[0, 0]], samplers=("dense",)))
    for ask in (lambda: open_dense(store), store.require_pictures):
        with pytest.raises(
            StoreError, match=r"has features of no video: 2 videos failed\. .* --fail"
        ):
            ask()


def test_costs_count_what_is_decoded_and_embedded(tmp_path: Path) -> None:
    video = write_squares(tmp_path / "v.mp4", 30, 1)
    request = FrameRequest(tmp_path / "v.mp4", video.id, parse_samplers("head"), 6, None)
    seen: list[int] = []
    choices = parse_samplers("uniform,motion,embedding-diversity", embedded=True)
    costs = measure_costs(
        [request, request], choices, lambda picture: picture, lambda x: seen.append(len(x))
    )
    assert [cost.sampler for cost in costs] == ["uniform", "motion", "embedding-diversity"]
    assert [cost.frames for cost in costs] == [6, 6, 30]  # all of them, before it can compare
    assert seen == [6, 6]
    assert all(cost.decode_cpu_ms > 0 and cost.videos == 2 for cost in costs)
    assert costs[2].embed_ms == pytest.approx(5 * costs[0].embed_ms)


def make_study(**more: Any) -> StudyPicture:
    columns = [
        Column("a", "a", "high", [0.5, 0.9, 0.1], "{:.2f}".format, "high", **more),
        Column("b", "b", "low", [0.5, 0.9, None], "{:.2f}".format, "low", from_zero=False),
        Column("c", "c", "none", [float("nan")] * 3, "{:.2f}".format),
    ]
    return StudyPicture("title " * 90, "", ["uniform", "x" * 60, "motion"], columns)


def colours(png: bytes) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}


def test_study_plot_tells_better_from_worse() -> None:
    blue, orange, grey = (0, 114, 178), (213, 94, 0), (107, 114, 128)
    assert {blue, orange, grey} <= colours(draw_study(make_study()))
    assert draw_study(make_study()) != draw_study(make_study(intervals=[(0, 1)] * 3))


@pytest.mark.parametrize(
    ("value", "base", "better", "interval", "colour"),
    [
        (0.9, 0.5, "high", None, BETTER),
        (0.9, 0.5, "low", None, WORSE),
        (0.1, 0.5, "low", None, BETTER),
        (0.1, 0.5, "", None, NEITHER),
        (0.5, 0.5, "high", None, NEITHER),
        (0.9, None, "high", None, NEITHER),
        (0.9, 0.5, "high", (0.4, 1.0), NEITHER),
        (0.9, 0.5, "high", (0.6, 1.0), BETTER),
    ],
)
def test_verdict(
    value: float, base: float, better: str, interval: tuple[float, float], colour: Any
) -> None:
    assert verdict(value, base, better, interval=interval) == colour


def test_figures_against_plain_ones() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((5, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [rows[i] @ rows[j] for i in range(5) for j in range(5) if i < j]
    assert repetition(rows) == pytest.approx(np.mean(pairs))
    assert np.isnan(repetition(rows[:1]))
    assert np.isnan(spacing_variation(np.array([1.0, 2.0])))
    assert spacing_variation(np.array([0.0, 1.0, 4.0])) == pytest.approx(0.5)
    assert largest_gap(np.array([5.0]), 5.0, 5.0) == 0.0
    assert largest_gap(np.array([2.0, 3.0]), 0.0, 10.0) == pytest.approx(0.7)


def make_sheet(title: str, count: int) -> Sheet:
    times = np.arange(count) / 10
    pictures = [np.full((60, 80, 3), 40 * k, np.uint8) for k in range(3)]
    rows = [SheetRow(f"motion:floor={n}", times[:3][:count], pictures[:count]) for n in range(9)]
    return Sheet(title, "64x48, 4.00 s", times, np.abs(np.sin(times)), rows)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_sheet_is_a_picture_with_the_frames_in_it(count: int) -> None:
    drawn = Image.open(io.BytesIO(draw_png(make_sheet("clip.mp4", count))))
    image = np.asarray(drawn.convert("RGB"))
    assert image.ndim == 3
    for k in range(min(count, 3)):
        assert (image == 40 * k).all(axis=2).sum() >= 9 * 60 * 80


def test_sheet_page_escapes_names() -> None:
    page = draw_html(make_sheet("<script>alert(1)</script>\ud800.mp4", 4)).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("data:image/png", "")


@pytest.mark.parametrize("sampler", [None, "head"])
def test_a_stored_selection_of_other_frames_is_used_with_a_note(
    build_store: Callable[..., Path], capsys: pytest.CaptureFixture[str], sampler: str | None
) -> None:
    folder = build_store([[3, 4]], samplers=("head",))
    for frames, told in ((3, False), (8, True)):
        open_store(Workspace(root=folder.parent, features=folder, frames=frames), sampler)
        words = "extracted with 3 frames a video and is used as it is, although frames is 8 here"
        assert (words in capsys.readouterr().err) == told

"""`vtr samplers study` on a small demo world: brief events, costs, table, JSON and plot."""

import io
import json
import re
from pathlib import Path

import pytest
from builders import run_app
from PIL import Image

from vtr.api.demo import demo_workspace
from vtr.api.extract import extract_features
from vtr.demo.events import brief_test_events, known_uniform_share
from vtr.errors import VtrError
from vtr.workspace import Workspace


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo's own path with 12 clips instead of 480."""
    folder = tmp_path_factory.mktemp("world")
    workspace = demo_workspace(folder, clips_per_group={"test": 4})
    assert extract_features(workspace, device="cpu", workers=1).ok == 12
    return workspace


def test_study_of_the_demo_world(world: Workspace, tmp_path: Path) -> None:
    out, plot = tmp_path / "study.json", tmp_path / "study.png"
    done = run_app(
        "samplers", "study", world.features, "--costs", "1", "--out", out, "--plot", plot
    )
    facts = json.loads(out.read_bytes())
    rows = {row["sampler"]: row for row in facts["samplers"]}
    assert (facts["frames"], facts["videos"], len(rows)) == (8, 12, 14)
    assert (facts["options"]["costs"], facts["options"]["seed"]) == (1, 0)
    brief = rows["uniform"]["brief"]
    known = known_uniform_share(brief_test_events(world.annotations / "demo.json"), num_frames=8)
    assert brief["events"] == 4
    assert brief["seen"] / 4 == pytest.approx(known)
    assert rows["diversity"]["brief"]["seen"] == 4
    assert rows["embedding-diversity"]["cost"]["frames"] > 8 == rows["motion"]["cost"]["frames"]
    assert all(row["cost"]["videos"] == 1 for row in rows.values())
    told = done.stderr.splitlines()
    assert told[:2] == ["12 videos, 14 samplers, 8 frames each", "choosing frames: activity"]
    assert "choosing frames: 14 of 14" in told[2]
    lines = done.output.splitlines()
    assert all(len(line) <= 80 for line in lines if line.startswith(("sampler", *rows)))
    headings = [line.split()[1:] for line in lines if line.startswith("sampler ")]
    assert headings == [
        ["brief", "meanP", "maxP", "attentionP", "cover", "repeat"],
        ["gap", "uneven", "choose", "decode", "embed"],
    ]
    assert Image.open(io.BytesIO(plot.read_bytes())).width > 3000


def test_study_without_the_videos_leaves_the_costs_out(world: Workspace, tmp_path: Path) -> None:
    world.videos.rename(tmp_path / "away")
    world.videos.mkdir()
    try:
        done = run_app("samplers", "study", world.features, "--sampler", "uniform", "--json")
    finally:
        world.videos.rmdir()
        (tmp_path / "away").rename(world.videos)
    (row,) = json.loads(done.stdout)["samplers"]
    assert (row["cost"], row["brief"]["events"]) == (None, 4)
    assert "no costs: none of the store's videos is in" in done.stderr


def test_study_elsewhere_has_neither_costs_nor_events(world: Workspace, tmp_path: Path) -> None:
    """A store away from its workspace: the videos are unknown."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in world.features.iterdir():
        if file.is_file():
            (moved / file.name).write_bytes(file.read_bytes())
    done = run_app("samplers", "study", moved, "--sampler", "uniform,head", "--frames", "4")
    assert "is not the store of a workspace" in done.output
    assert "decode" not in done.output
    assert "brief" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--plot", "figure.svg"), "--plot is figure.svg; its name must end in .png"),
        (("--costs", "-1"), "--costs is -1; it must be 0 or more videos"),
        (("--frames", "0", "--costs", "0"), "--frames is 0; it must be a whole number, 1 or more"),
        (("--sampler", "unifrm"), "no sampler named 'unifrm'. Did you mean 'uniform'?"),
        (("--sampler", "motion:flor=1"), "Did you mean 'floor'?"),
    ],
)
def test_study_refuses(world: Workspace, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(VtrError, match=re.escape(message)):
        run_app("samplers", "study", world.features, *words)


def test_show_names_the_file_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VtrError, match=r"text\.mp4"):
        run_app("samplers", "show", tmp_path / "text.mp4", "--out", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()

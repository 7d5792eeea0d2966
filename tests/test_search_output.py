"""What a search makes of its hits: clips, a sheet, a list, a player at the moment."""

import io
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import write_clip
from PIL import Image

from vtr.api.search_output import check_outputs, clip_name, export_clips, play_first, write_outputs
from vtr.errors import ConfigError, StoreWriteError
from vtr.searching.library import Hit
from vtr.searching.sheet import contact_sheet
from vtr.verbs.search import Options


@pytest.fixture(scope="module")
def hits(tmp_path_factory: pytest.TempPathFactory) -> list[Hit]:
    """One at a key frame, one between two, one that cannot be decoded, one without a file."""
    folder = tmp_path_factory.mktemp("films")
    greys = [np.full((48, 64, 3), 40 + 5 * n, np.uint8) for n in range(30)]
    options = {"crf": "8", "g": "10", "sc_threshold": "0"}
    film = write_clip(folder / "a film.mp4", greys, fps=10, options=options)
    (folder / "bad.mp4").write_bytes(b"no video")
    return [
        Hit("sub/a film.mp4", film, 1.0, 2.0, 1.5, 0.4, 0.99),
        Hit("sub/a film.mp4", film, 0.5, 0.9, 0.7, 0.3, 0.97),
        Hit("bad.mp4", folder / "bad.mp4", 0.0, 1.0, 0.5, 0.2, 0.96),
        Hit("gone.mp4", None, 0.0, 1.0, 0.5, 0.1, 0.95),
    ]


def test_hits_become_clips_and_each_says_how(
    hits: list[Hit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = export_clips(hits, tmp_path)
    assert [path.name for path in written] == ["001-sub_a_film-1.0s.mp4", "002-sub_a_film-0.5s.mp4"]
    for path, seconds in zip(written, (1.0, 0.4), strict=True):
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == pytest.approx(10 * seconds, abs=3)
    said = " ".join(capsys.readouterr().err.split())
    assert "copied, without sound" in said
    assert "encoded anew (no key frame at its start)" in said
    assert "not cut: bad.mp4: not-a-video" in said
    assert "2 hits could not be cut" in said
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4"}  # no leftovers


def test_a_sheet_shows_the_best_frames(hits: list[Hit], tmp_path: Path) -> None:
    options = Options.of(contact_sheet=tmp_path / "s.png", cut_list=tmp_path / "c.csv", export=None)
    check_outputs(options)
    assert write_outputs(["a grey film"], hits, options) == [tmp_path / "c.csv", tmp_path / "s.png"]
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "s.png").read_bytes())).convert("L"))
    middle = sheet[62 + 135 // 2, 24 + 120]
    assert abs(int(middle) - (40 + 5 * 15)) < 12  # the frame at 1.5 s
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 5


def test_a_sheet_of_nothing_says_so_and_a_picture_has_no_level(hits: list[Hit]) -> None:
    bare, empty = (contact_sheet("x", found, [None] * len(found)) for found in (hits[:1], []))
    assert contact_sheet("x", hits[:1], [None], levels=False) != bare
    assert (np.asarray(Image.open(io.BytesIO(empty)).convert("L"))[55:75] < 160).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut_list": "x.txt"}, r"must end in \.csv"),
        ({"contact_sheet": "x.jpg"}, r"must end in \.png"),
        ({"export": "file/x"}, "--export"),
    ],
)
def test_outputs_that_cannot_be_are_refused_first(here: Path, options: Any, message: str) -> None:
    Path("file").touch()
    with pytest.raises((ConfigError, StoreWriteError), match=message):
        check_outputs(Options.of(**options))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_refuses_is_named(hits: list[Hit], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreWriteError, match="cannot write clips into"):
        export_clips(hits[:1], tmp_path)


def test_names_are_safe_and_sort_by_rank() -> None:
    odd = Hit("../x y\n/é*.mkv", None, 61.26, 62, 61, 0.1, 0.9)
    assert clip_name(12, odd) == "012-.._x_y_é_-61.3s"
    assert "/" not in clip_name(1, odd)


def test_a_cut_list_names_files_wherever_it_is_read(
    hits: list[Hit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hits[0].path
    monkeypatch.chdir(path.parent)
    near = replace(hits[0], path=Path(path.name))
    write_outputs(["x"], [near], Options.of(cut_list=tmp_path / "c.edl"))
    assert f"* SOURCE FILE: {path}" in (tmp_path / "c.edl").read_text()


def test_hits_whose_files_are_gone_are_not_left_out_silently(
    hits: list[Hit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_clips([replace(hit, path=None) for hit in hits], tmp_path) == []
    assert "can be cut: their files are not here" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "flag"), [("mpv", "--start=1.00"), ("vlc", "--start-time=1.00")])
def test_the_first_hit_is_played_at_its_moment(
    hits: list[Hit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flag: str
) -> None:
    player = tmp_path / name
    player.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said.part\n'
                      f"mv {tmp_path}/said.part {tmp_path}/said\n")  # fmt: skip
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert play_first(hits).startswith(f"{name} plays")
    for _ in range(200):
        if (tmp_path / "said").exists():
            break
        time.sleep(0.05)
    assert flag in (tmp_path / "said").read_text().splitlines()


def test_without_a_player_the_place_is_said(
    hits: list[Hit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"neither mpv nor vlc .* at 1\.0 s"):
        play_first(hits)
    with pytest.raises(ConfigError, match="nothing to play: no hit whose file is here"):
        play_first(hits[-1:])
    with pytest.raises(ConfigError, match="nothing to play: nothing matches"):
        play_first([])

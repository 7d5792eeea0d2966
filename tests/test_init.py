"""`vtr init`, through the command line."""

import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import put, run_app, touch
from click.testing import Result

import vtr.datasets
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, VtrError
from vtr.workspace import find_workspace

READER = '''
"""A dataset of nine clips."""
import json
from vtr.datasets.base import Caption, Dataset

def load(annotations, videos):
    file = annotations / "clips.json"
    ids = json.loads(file.read_text())
    captions = tuple(Caption(i, i, "a clip") for i in ids)
    return Dataset("nine-clips", tuple(ids), captions, {"test": tuple(ids)},
                   annotation_files=(file,))
'''


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One more file in the datasets folder, which is all that a new dataset takes."""
    folder = tmp_path / "readers"
    put(folder / "nine_clips.py", READER)
    monkeypatch.setattr(vtr.datasets, "__path__", [*vtr.datasets.__path__, str(folder)])
    yield "nine-clips"
    sys.modules.pop("vtr.datasets.nine_clips", None)
    if hasattr(vtr.datasets, "nine_clips"):
        del vtr.datasets.nine_clips


def run(*arguments: str, code: int = 0) -> Result:
    return run_app("init", *arguments, code=code)


def rows(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[13:] for line in text.splitlines()}


def test_a_plain_folder(here: Path) -> None:
    touch(here / "films", "a.mp4", "sub/b.webm", ".hidden.mp4")
    result = run("--videos", "films")
    assert result.stderr == ""
    assert rows(result.stdout) == {
        "workspace": str(here / "vtr.toml"),
        "dataset": "folder",
        "model": "openai/clip-vit-base-patch32",
        "annotations": "none read",
        "videos": f"2 of 2 present in {here / 'films'}",
        "skipped": "1 hidden or system entry",
        "next": "vtr extract",
    }
    workspace = find_workspace(here)
    assert (workspace.dataset, workspace.videos) == ("folder", here / "films")
    assert 'videos = "films"' in (here / "vtr.toml").read_text()


def test_a_dataset_reports_what_is_there_and_what_is_missing(here: Path, reader: str) -> None:
    ids = [f"clip{number}" for number in range(9)]
    notes = here / "notes"
    put(notes / "clips.json", ids)
    touch(here / "films", "clip0.mp4", "deep/clip1.avi", "other.mp4", "twice/clip1.mp4")
    result = run(reader, "--videos", "films", "--annotations", "notes", "--path", "my ws")
    report = rows(result.stdout)
    assert report["annotations"] == "1 file recognised: clips.json"
    assert (report["captions"], report["splits"]) == ("9", "test 9")
    assert report["videos"] == f"2 of 9 present in {here / 'films'}"
    assert report["missing"] == "7: clip2, clip3, clip4, clip5, clip6 and 2 more"
    assert report["unexpected"] == "1 more video files belong to no id"
    assert report["next"] == f"cd '{here / 'my ws'}' && vtr extract"
    assert result.stderr == (
        "warning: 1 id has several files, of which the first is taken: clip1\n"
    )
    workspace = find_workspace(here / "my ws")
    assert workspace.annotations == notes


def test_json_is_one_document_and_lists_everything(here: Path, reader: str) -> None:
    ids = ["clip0", *(f"gone{number}" for number in range(7))]
    notes = here / "notes"
    put(notes / "clips.json", ids)
    touch(here / "films", "clip0.mp4", "clip0.webm")
    result = run(reader, "--videos", "films", "--annotations", "notes", "--json")
    facts = json.loads(result.stdout)
    assert (facts["expected"], facts["present"]) == (8, 1)
    assert facts["missing"] == ids[1:]
    assert facts["duplicates"] == {"clip0": [str(here / "films" / "clip0.webm")]}
    assert facts["annotation_files"] == [str(notes / "clips.json")]
    assert facts["splits"] == {"test": 8}
    assert facts["next"] == "vtr extract"


def test_nothing_present_is_a_warning_for_a_dataset(here: Path, reader: str) -> None:
    put(here / "notes" / "clips.json", '["a"]')
    (here / "films").mkdir()
    result = run(reader, "--videos", "films", "--annotations", "notes")
    assert "warning: not one of the expected videos is in" in result.stderr
    assert rows(result.stdout)["missing"] == "1: a"


def test_names_that_cannot_be_processed_are_warned_of_and_printed_harmlessly(here: Path) -> None:
    twins = [unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD")]
    try:
        touch(here / "films", os.fsdecode(b"caf\xe9.mp4"), "two\nlines\x1b[31m.mp4", *twins)
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    result = run("--videos", "films", "--json")
    assert r"2 videos cannot be processed as named" in result.stderr
    assert r"caf\xe9.mp4 (bad-name)" in result.stderr
    problems = json.loads(result.stdout)["problems"]
    assert problems == {r"caf\xe9.mp4": "bad-name", "é.mp4#duplicate-2": "duplicate-id"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "gone"], "--videos is gone, but there is no such folder"),
        (["--videos", "file.mp4"], "--videos is file.mp4, but that is a file; name the folder"),
        (["--videos", "films", "--annotations", "gone"], "--annotations is gone, but there is no"),
        (
            ["--videos", "empty"],
            r"--videos is .*/empty, but no video is in it .*\(1 other file "
            r"\(1 \.txt\), 1 hidden or system entry\)\. "
            r"Looked for: .*\.mp4 ",
        ),
        (["--videos", "films", "--model", ""], "no model ''"),
    ],
)
def test_mistakes_are_explained_and_leave_nothing(
    here: Path, arguments: list[str], message: str
) -> None:
    touch(here, "file.mp4", "films/a.mp4", "empty/readme.txt", "empty/.hidden.mp4")
    with pytest.raises(VtrError, match=message):
        run(*arguments)
    assert not (here / "vtr.toml").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("init", "--videos", "videos"),
        ("extract", "--videos", "videos", "--dry-run", "--model", str(demo_model_folder())),
        ("compress", "videos", "copies"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_cannot_be_listed_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Its videos would otherwise be missing without a word."""
    touch(here / "videos", "a.mp4", "locked/b.mp4")
    list_folder = os.scandir

    def refuse_locked(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse_locked)
    done = run_app(*words, code=3 if words[0] == "compress" else 0)  # an empty file fails
    assert "warning: the folder locked cannot be listed: Permission denied" in done.stderr


def test_an_existing_workspace_is_kept_unless_forced(here: Path) -> None:
    touch(here / "films", "a.mp4")
    (here / "vtr.toml").write_text("# mine\n")
    with pytest.raises(ConfigError, match="exists already"):
        run("--videos", "films")
    assert (here / "vtr.toml").read_text() == "# mine\n"
    run("--videos", "films", "--force")
    assert find_workspace(here) is not None


def test_a_local_model_is_found_from_everywhere(here: Path) -> None:
    touch(here / "films", "a.mp4")
    (here / "tiny").mkdir()
    run("--videos", "films", "--model", "tiny", "--path", "ws")
    workspace = find_workspace(here / "ws")
    assert workspace.model == str(here / "tiny")


def test_without_videos_it_is_a_usage_error(here: Path) -> None:
    result = run(code=2)
    assert "--videos" in result.stderr
    assert not list(here.iterdir())


def test_a_file_that_two_ids_fit_is_said_to_be_nobodys(here: Path) -> None:
    put(here / "films" / "a.mp4", b"x")
    put(here / "notes" / "captions_msvd.json", '{"a.avi": ["x"], "a.mov": ["y"]}')
    result = run("msvd", "--videos", "films", "--annotations", "notes")
    said = "several ids fit one file equally well, so that none has it: a.avi, a.mov"
    assert f"warning: {said}" in result.stderr
    assert "missing      2: a.avi, a.mov" in result.stdout
    found = run_app("data", "verify", "--fast", code=3)
    assert "contested    a.avi, a.mov" in found.stdout

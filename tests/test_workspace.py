"""vtr.toml: found, read, checked, written; flags over file over defaults."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr.errors import ConfigError, StoreWriteError
from vtr.workspace import (
    Workspace,
    find_workspace,
    read_workspace,
    settings,
    workspace_here,
    write_workspace,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "vtr.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    workspace = read_workspace(write(tmp_path, ""))
    assert workspace == Workspace.at(tmp_path)
    assert workspace.model == "openai/clip-vit-base-patch32"
    assert (workspace.dataset, workspace.fps, workspace.frames) == ("folder", 1.0, 12)
    assert (workspace.features, workspace.runs) == (tmp_path / "features", tmp_path / "runs")
    assert workspace.videos is None


def test_every_setting_can_be_written_and_is_read_back(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [data]
        dataset = "folder"
        videos = "/films"
        annotations = "notes"
        [model]
        id = "./tiny"
        [folders]
        features = "cache"
        runs = "out/runs"
        [extract]
        fps = "native"
        frames = 3
        sampler = "head,uniform"
        seed = 7
        route = "exact"
        shard_videos = 10
        workers = 2
        timeout_seconds = 12
        batch_size = 5
        """,
    )
    workspace = read_workspace(path)
    defaults = Workspace.at(tmp_path)
    expected = {
        "videos": Path("/films"),
        "annotations": tmp_path / "notes",
        "model": str(tmp_path / "tiny"),
        "features": tmp_path / "cache",
        "runs": tmp_path / "out/runs",
        "fps": "native",
        "frames": 3,
        "sampler": "head,uniform",
        "seed": 7,
        "route": "exact",
        "shard_videos": 10,
        "workers": 2,
        "timeout_seconds": 12.0,
        "batch_size": 5,
    }
    assert {name: getattr(workspace, name) for name in expected} == expected
    changed = {name for name, value in workspace if value != getattr(defaults, name)}
    assert changed == set(expected), "every key of the file must reach its setting"


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "a" / "inner"
    (inner / "b" / "c").mkdir(parents=True)
    assert find_workspace(inner) is None
    write(outer, "")
    (inner / "b" / "vtr.toml").mkdir()  # a folder of that name is no workspace
    assert find_workspace(inner / "b" / "c") == Workspace.at(outer)
    write(inner, "[extract]\nframes = 4\n")
    found = find_workspace(inner / "b" / "c")
    assert (found.root, found.frames) == (inner, 4)
    assert find_workspace(inner / "b" / ".." / "..") == Workspace.at(outer)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = '[data]\nvideos = "~/films"\n[model]\nid = "~/clip"\n'
    workspace = read_workspace(write(tmp_path, text))
    assert workspace.videos == tmp_path / "films"
    assert workspace.model == str(tmp_path / "clip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[extarct]\n", r"vtr.toml:2: no section named 'extarct'. Did you mean 'extract'?"),
        (
            "# one\n[extract]\n\nfrmes = 3\n",
            r"vtr.toml:4: no key in [extract] named 'frmes'. Did you mean 'frames'?",
        ),
        ("fps = 3\n", "vtr.toml:1: no section named 'fps'"),
        ("data = 3\n", "vtr.toml:1: write [data] with its keys on the lines below it"),
        ("[extract]\nframes = 3.5\n", "vtr.toml:2: frames in [extract] is 3.5; it must be a whole"),
        ("[extract]\nframes = true\n", "is True; it must be a whole number, 1 or more"),
        ("[extract]\nframes = 0\n", "is 0; it must be a whole number, 1 or more"),
        ('[extract]\nframes = "3"\n', "is '3'; it must be a whole number, 1 or more"),
        ("[extract]\nfps = 0\n", 'is 0; it must be frames per second above 0, or "native"'),
        ("[extract]\nfps = inf\n", "is inf; it must be frames per second above 0"),
        ("[extract]\nfps = nan\n", "is nan; it must be frames per second above 0"),
        ('[extract]\nfps = "all"\n', "is 'all'; it must be frames per second above 0"),
        ("[extract]\nfps = true\n", "is True; it must be frames per second above 0"),
        ("[extract]\nseed = -1\n", "is -1; it must be a whole number, 0 or more"),
        ("[extract]\ntimeout_seconds = 0\n", "is 0; it must be a number of seconds above 0"),
        ('[extract]\nroute = "slow"\n', 'is \'slow\'; it must be "exact" or "fast"'),
        (
            '[extract]\nsampler = "unifrom"\n',
            "vtr.toml:2: sampler in [extract]: no sampler named 'unifrom'. Did you mean 'uniform'?",
        ),
        ('[data]\ndataset = "foldr"\n', "no dataset named 'foldr'. Did you mean 'folder'?"),
        ("[data]\nvideos = 3\n", "is 3; it must be a path, as text"),
        ('[data]\nvideos = ""\n', "is ''; it must be a path, as text"),
        ('[model]\nid = " "\n', "is ' '; it must be a text that is not empty"),
        ("[data\n", "is not valid TOML: "),
        ('[data]\nvideos = "a"\nvideos = "b"\n', "is not valid TOML: "),
        ("a = " + "[" * 3_000 + "]" * 3_000, "is not valid TOML: nested too deeply"),
        ("a = " + "9" * 5_000, "is not valid TOML: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_workspace(write(tmp_path, text).parent)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vtr.toml").write_bytes(b"[data]\nvideos = '\xff'\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text: invalid start byte at byte 17"):
        find_workspace(tmp_path)


def test_windows_editors_are_fine(tmp_path: Path) -> None:
    (tmp_path / "vtr.toml").write_bytes(b"\xef\xbb\xbf[extract]\r\nframes = 5\r\n")
    found = find_workspace(tmp_path)
    assert found.frames == 5


def test_flags_win_over_the_file_and_the_file_over_defaults(here: Path) -> None:
    (here / "ws").mkdir()
    workspace = read_workspace(
        write(here / "ws", '[extract]\nframes = 5\nfps = 2\n[data]\nvideos="v"')
    )
    result = settings(workspace, frames=7, videos=None, features=Path("f"))
    assert (result.frames, result.fps, result.seed) == (7, 2.0, 0)
    assert (result.videos, result.features) == (here / "ws" / "v", here / "f")
    assert workspace.frames == 5


def test_without_a_workspace_flags_are_enough(here: Path) -> None:
    result = workspace_here(videos=Path("v"), fps="2.5", model="./m")
    assert result == Workspace.at(here, videos=here / "v", fps=2.5, model=str(here / "m"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"frames": 0}, "--frames is 0; it must be a whole number, 1 or more"),
        ({"fps": "fast"}, "--fps is 'fast'; it must be frames per second above 0"),
        ({"fps": "-1"}, "--fps is '-1'; it must be frames per second above 0"),
        ({"timeout_seconds": -1.0}, "--timeout is -1.0; it must be"),
        ({"sampler": "uniform:x=1"}, "--sampler: no option of sampler 'uniform' named 'x'"),
    ],
)
def test_wrong_flags_are_named(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        workspace_here(**flags)


def test_the_resolved_settings_are_json(tmp_path: Path) -> None:
    resolved = Workspace.at(tmp_path, videos=Path("v")).as_dict()
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["videos"] == str(tmp_path / "v")
    assert set(resolved) == set(Workspace.model_fields)


# ---- writing

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("\"\\\x7f\n\r\t#'{}~./"),
    min_size=1,
    max_size=12,
).filter(lambda text: bool(text.strip()))
PATHS = TEXTS.map(Path)


@given(
    model=TEXTS,
    videos=st.none() | PATHS,
    annotations=st.none() | PATHS,
    features=PATHS,
    fps=st.just("native") | st.floats(min_value=1e-6, max_value=1e6),
    frames=st.integers(1, 10**6),
    workers=st.none() | st.integers(1, 99),
    batch_size=st.none() | st.integers(1, 999),
    timeout_seconds=st.floats(min_value=1e-3, max_value=1e9),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, **values: object
) -> None:
    workspace = Workspace.at(tmp_path_factory.getbasetemp() / "read-back", **values)
    path = write_workspace(workspace, force=True)
    assert read_workspace(path) == workspace


@pytest.mark.parametrize("name", ["~", "~nobody", "./~", "~x/y"])
def test_a_tilde_in_a_folder_s_name_survives(tmp_path: Path, name: str) -> None:
    workspace = Workspace.at(tmp_path, videos=tmp_path / name)
    assert read_workspace(write_workspace(workspace)).videos == tmp_path / name


def test_the_file_names_every_setting_and_explains_it(tmp_path: Path) -> None:
    text = write_workspace(Workspace.at(tmp_path / "new", workers=3, batch_size=8)).read_text()
    content = tomllib.loads(text)
    assert content["extract"]["fps"] == 1.0
    assert content["folders"] == {"features": "features", "runs": "runs"}
    assert '# videos = "videos"' in text
    keys = {key for table in content.values() for key in table}
    assert keys | {"videos", "annotations"} == set(Workspace.model_fields) - {"root", "model"} | {
        "id"
    }
    lines = text.splitlines()
    settings_lines = [i for i, line in enumerate(lines) if " = " in line]
    assert all(lines[i - 1].startswith(("#", "features =")) for i in settings_lines)


def test_paths_inside_are_relative_so_that_the_folder_can_move(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_workspace(Workspace.at(old, videos=Path("films"), annotations=Path("/elsewhere")))
    old.rename(new)
    moved = find_workspace(new)
    assert (moved.videos, moved.annotations) == (new / "films", Path("/elsewhere"))


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = write(tmp_path, "# mine\n")
    with pytest.raises(ConfigError, match=r"vtr\.toml exists already.*--path.*--force"):
        write_workspace(Workspace.at(tmp_path))
    assert path.read_text() == "# mine\n"
    write_workspace(Workspace.at(tmp_path), force=True)
    assert "[extract]" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["vtr.toml"]


def test_a_path_that_is_no_text_cannot_be_written(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, videos=Path("caf\udce9"))
    with pytest.raises(ConfigError, match=r"the path caf\\xe9 is not valid Unicode"):
        write_workspace(workspace)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreWriteError, match=r"cannot make the folder .*Choose another with --path"
    ):
        write_workspace(Workspace.at(tmp_path / "file" / "sub"))

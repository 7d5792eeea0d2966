"""`vtr search` as a user meets it: folders, workspaces, queries, answers, refusals."""

import dataclasses
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import (
    contents,
    make_run,
    patchwork,
    run_app,
    run_json,
    run_process,
    write_clip,
    write_config,
)
from PIL import Image
from safetensors.numpy import load_file, save_file

import vtr
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, DecodeError, UnknownNameError, VtrError
from vtr.features import FeatureStore
from vtr.searching.same_files import mark_files, read_marks, replaced, write_marks

MODEL = str(demo_model_folder())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of two scenes each, of three seconds; the first search indexes them."""
    folder = tmp_path_factory.mktemp("films")
    for n in range(4):
        scenes = [picture for s in (2 * n, 2 * n + 1) for picture in patchwork(1, seed=s) * 12]
        write_clip(folder / ("sub" if n > 1 else "") / f"{n}.mp4", scenes)
    (folder / "broken.mp4").write_bytes(b"no video")
    run_app("search", folder, "a red square", "--model", MODEL)
    return folder


def ask(clips: Path, *words: str | Path) -> dict[str, Any]:
    return run_json("search", clips, *words)


def first(answer: dict[str, Any]) -> dict[str, Any]:
    return (answer["hits"] or answer["nearest"])[0]


def test_a_frame_a_picture_and_a_clip_find_their_moment(clips: Path, tmp_path: Path) -> None:
    with av.open(str(clips / "sub" / "2.mp4")) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    frames[16].save(tmp_path / "p.png")  # at 4 s
    clip = write_clip(tmp_path / "c.mp4", patchwork(1, seed=5) * 8)
    assert {hit["level"] for hit in ask(clips, "--like", "sub/2.mp4@4")["hits"]} == {1.0}
    for words in (
        ("--like", "sub/2.mp4@4"),
        ("--image", tmp_path / "p.png"),
        ("--video", clip),
        ("--video", clip, "--at", "1"),
    ):
        hit = first(ask(clips, *words))
        assert (hit["video_id"], hit["end_seconds"]) == ("sub/2.mp4", 6.0), words
        assert 2.5 <= hit["start_seconds"] <= 3.3


def test_what_cannot_be_read_is_counted(clips: Path, tmp_path: Path) -> None:
    answer = ask(clips, "a red square")
    assert (answer["num_videos"], answer["num_failed"]) == (5, 1)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    done = run_app("search", tmp_path, "a red square", "--model", MODEL, code=3)
    assert "none can be read" in done.stdout
    assert "1 video of 1 could not be read" in done.stderr


def test_its_usage_reads_as_one_types_it() -> None:
    assert "Usage: vtr search [OPTIONS] [FOLDER|SENTENCE]..." in run_app("search", "-h").stdout


def test_filters_hold(clips: Path) -> None:
    like = ("--like", "sub/2.mp4@4")
    assert {h["video_id"] for h in ask(clips, *like, "--in", "sub")["hits"]} == {
        "sub/2.mp4", "sub/3.mp4"
    }  # fmt: skip
    assert [h["video_id"] for h in ask(clips, *like, "--in", "?.mp4", "--top", "1")["hits"]] == [
        "sub/2.mp4"
    ]
    assert ask(clips, *like, "--min-length", "60")["hits"] == []
    done = run_app("search", clips, "a dog", "--in", "nowhere")
    assert done.stdout.startswith("no video to look into")
    assert len(ask(clips, *like, "--max-length", "60")["hits"]) == 4
    several = ask(clips, "--like", "0.mp4@1", "--all-moments")["hits"]
    assert len(several) >= 4


def test_parts_are_averaged_and_weights_are_said(clips: Path) -> None:
    done = run_app("search", clips, "a red square", "a ball", "--not", "blue", "--nearest")
    assert "+0.50 a red square, +0.50 a ball, -0.50 not blue" in done.stderr
    turned = ask(clips, "--like", "0.mp4@1", "--not", "a red square")
    assert turned["weights"][-1] == ["not a red square", -0.5]


def test_what_is_no_match_is_said_and_shown_on_request(clips: Path) -> None:
    sentence = "qwx zzk vvrt"
    done = run_app("search", clips, sentence)
    assert done.stdout.startswith("no match: ")
    assert "--nearest shows the 4 moments" in done.stderr
    assert "1 video of 5 could not be read" in done.stderr
    look = shlex.split(done.stderr.partition("which and why: vtr ")[2].splitlines()[0])
    assert "'broken.mp4': not-a-video" in run_app(*look).stdout
    shown = run_app("search", clips, sentence, "--nearest", "--top", "2").stdout
    assert len([line for line in shown.splitlines() if ".mp4" in line]) == 2


def test_a_level_that_misses_is_never_rounded_to_what_it_must_be(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.searching.calibration.Calibration.level", lambda *_: 0.979)
    assert "no match: 97% of unrelated" in run_app("search", clips, "a red square").stdout


def test_a_name_of_two_lines_takes_one_row(tmp_path: Path) -> None:
    write_clip(tmp_path / "v" / "two\nlines.mp4", patchwork(1) * 4)
    done = run_app("search", tmp_path / "v", "--like", "two\nlines.mp4@0", "--model", MODEL)
    assert r"two\nlines.mp4" in done.stdout


def test_a_long_name_of_several_words_costs_no_digit(tmp_path: Path) -> None:
    name = " ".join(["holiday"] * 9) + ".mp4"
    write_clip(tmp_path / "v" / name, patchwork(1) * 4)
    done = run_app("search", tmp_path / "v", "--like", f"{name}@0", "--model", MODEL)
    assert name in done.stdout
    row = done.stdout.splitlines()[-1].split()
    assert row[:5] == ["1", "0:00.0", "0:01.0", "0:00.0", "1.000"]


def test_new_changed_and_deleted_videos_are_seen(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(clips, folder)
    ask(folder, "--like", "0.mp4@1")
    write_clip(folder / "new.mp4", patchwork(1, seed=40) * 8)
    (folder / "1.mp4").unlink()
    shutil.copy(folder / "sub" / "3.mp4", folder / "0.mp4")
    videos = {h["video_id"] for h in ask(folder, "--like", "new.mp4@1")["hits"]}
    assert videos == {"new.mp4", "0.mp4", "sub/2.mp4", "sub/3.mp4"}
    same = ask(folder, "--like", "sub/3.mp4@1")["hits"]
    assert {same[0]["video_id"], same[1]["video_id"]} == {"sub/3.mp4", "0.mp4"}


def test_a_file_put_in_the_place_of_one_of_its_size_and_time_is_seen(
    clips: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "own", tmp_path / "other.mp4"
    shutil.copytree(clips, folder)
    ask(folder, "--like", "0.mp4@1")
    held, one = (folder / "0.mp4").stat(), (folder / "1.mp4").read_bytes()
    other.write_bytes(one[: held.st_size].ljust(held.st_size, b"\0"))
    os.utime(other, ns=(held.st_atime_ns, held.st_mtime_ns))
    other.replace(folder / "0.mp4")
    assert "indexed 1 video" in run_app("search", folder, "a red square").stderr


def test_files_that_were_only_moved_or_given_other_rights_are_not_embedded_again(
    clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "own")
    ask(tmp_path / "own", "--like", "0.mp4@1")
    for path in (tmp_path / "own").glob("*.mp4"):
        path.chmod(0o600)
        shutil.copy2(path, tmp_path / "copy")
        (tmp_path / "copy").replace(path)
    assert "indexed" not in run_app("search", tmp_path / "own", "a red square").stderr


def test_a_clip_that_blinks_in_step_with_the_candidates_is_found_by_each_of_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, off, other = patchwork(3)
    write_clip(tmp_path / "v" / "blinks.mp4", [off, off, on, on] * 10, fps=8)
    write_clip(tmp_path / "v" / "rests.mp4", [off] * 40, fps=8)
    Image.fromarray(on).save(tmp_path / "on.png")
    words = ("--image", tmp_path / "on.png", "--model", MODEL)
    monkeypatch.setattr("vtr.searching.folder._JITTER", 0.0)  # as an older vtr indexed
    assert first(ask(tmp_path / "v", *words))["score"] < 0.99
    store = FeatureStore(tmp_path / "v" / ".vtr" / "search")
    monkeypatch.undo()
    write_clip(tmp_path / "v" / "new.mp4", [other] * 8)
    assert first(ask(tmp_path / "v", "--like", "new.mp4@1"))["video_id"] == "new.mp4"
    assert FeatureStore(store.folder).fingerprint == store.fingerprint  # it went on
    hit = first(ask(tmp_path / "v", *words, "--rebuild"))
    assert hit["video_id"] == "blinks.mp4"
    assert hit["score"] > 0.99
    assert FeatureStore(store.folder).spec.candidate_jitter > 0


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ((), ConfigError, "nothing to search for"),
        ((" ",), ConfigError, "is empty"),
        (("a\0b",), ConfigError, r"'a\\x00b' has a NUL character"),
        (("a\ud800b",), ConfigError, "is not valid Unicode"),
        (("--image", "gone.png"), ConfigError, "gone.png does not exist"),
        (("--image", "broken.mp4"), ConfigError, r"broken\.mp4"),
        (("--video", "broken.mp4"), DecodeError, r"not-a-video"),
        (("--video", "broken.mp4", "--at", "1", "--at", "2"), ConfigError, "--at is given 2 times"),
        (("--video", "0.mp4", "--at", "-1"), ConfigError, r"\(-1.0,\); it must be a number of s"),
        (("--video", "0.mp4", "--at", "nan"), ConfigError, "--at is nan; it must be a number of s"),
        (("--like", "0.mp4"), ConfigError, "a video and a second of it"),
        (("--like", "0.mp4@99"), ConfigError, "there is no second 99"),
        (("--like", "zero.mp4@1"), UnknownNameError, "zero.mp4"),
        (("--like", "broken.mp4@0"), ConfigError, "has no frames"),
        (("x", "--not", "x"), ConfigError, "nothing is left"),
        (("x", "--min-length", "5", "--max-length", "2"), ConfigError, "5 is above --max-length 2"),
        (("x", "--run", "r"), ConfigError, "--run names a run of a workspace"),
        (("x", "--rerank", "5"), ConfigError, "--rerank orders what a head .* no --run is named"),
        (("x", "--cut-list", "a.txt"), ConfigError, r"\.csv, \.edl"),
    ],
)
def test_bad_queries_are_refused_in_words(
    clips: Path, monkeypatch: pytest.MonkeyPatch, words: Any, error: type[VtrError], message: str
) -> None:
    monkeypatch.chdir(clips)
    with pytest.raises(error, match=message):
        run_app("search", clips, *words)


def test_a_long_sentence_is_cut_and_that_is_said(clips: Path) -> None:
    done = run_app("search", clips, "word " * 10_000)
    assert "1 sentence was longer than the model reads" in done.stderr


def test_folders_that_cannot_be_searched(here: Path) -> None:
    (here / "empty").mkdir()
    for words, message in (
        (("empty", "x"), "no video"),
        (("s3://bucket/x", "a dog"), "s3://bucket/x is none; .* A workspace of it is needed"),
        (("nowhere", "x"), "'nowhere' does not exist, and there is no vtr.toml"),
        ((), "no folder named"),
    ):
        with pytest.raises(VtrError, match=message):
            run_app("search", *words, "--model", MODEL)


def test_a_folder_that_takes_nothing_is_searched_by_the_users_cache(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "v").mkdir()
    shutil.copy(clips / "0.mp4", tmp_path / "v")
    (tmp_path / "v" / ".vtr").touch()  # no folder can be made there
    ask(tmp_path / "v", "a red square", "--model", MODEL)
    assert [path.name[:2] for path in (tmp_path / "cache" / "vtr" / "search").iterdir()] == ["v-"]


SETPRIV = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv")
def test_what_another_user_indexed_answers_and_says_that_it_is_old(
    clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "v")
    write_clip(tmp_path / "v" / "new.mp4", patchwork(1) * 4)
    for path in (tmp_path / "v" / ".vtr").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    words = [sys.executable, "-m", "vtr", "search", tmp_path / "v", "--like", "sub/2.mp4@4"]
    prefix = SETPRIV if os.geteuid() == 0 else ()
    done = subprocess.run([*prefix, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, "sub/2.mp4" in done.stdout) == (0, True), done.stderr
    assert "cannot be written: the answer comes from what was indexed before" in done.stderr


def test_a_file_is_another_one_by_its_ends_or_if_it_can_be_read_now(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    now = mark_files({"a": tmp_path / "a", "gone": tmp_path / "b", "none": None}, {})
    assert list(now) == ["a"]
    shut, other = {"a": (1, 2, "")}, {"a": (1, 2, "0" * 24)}
    assert replaced(now, now) == replaced(shut, now) == replaced(now, {}) == frozenset()
    assert replaced(now, shut) == replaced(now, other) == {"a"}
    write_marks(tmp_path, now)
    assert read_marks(tmp_path) == now


def test_another_model_is_refused(clips: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    weights[name] = np.asarray(weights[name] + np.float32(0.01))
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VtrError, match="--rebuild"):
        run_app("search", clips, "x", "--model", str(other))


def test_a_model_that_went_is_named_and_taken_from_where_it_lies_now(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(MODEL, old)
    write_clip(tmp_path / "v" / "a.mp4", patchwork(1) * 4)
    run_app("search", tmp_path / "v", "x", "--model", old)
    old.rename(new)
    with pytest.raises(VtrError, match=r"were made with .*old, which is not there any more"):
        run_app("search", tmp_path / "v", "x")
    run_app("search", tmp_path / "v", "x", "--model", new)
    run_app("search", tmp_path / "v", "x")


@pytest.fixture(scope="module")
def workspace(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    write_config(folder, data={"dataset": "folder", "videos": str(clips)})
    run_app("extract", "--sampler", "dense", "--fps", "2", cwd=folder, code=3)
    make_run(folder / "runs" / "mine")
    return folder


def test_a_workspaces_index_is_kept_where_it_was_asked_for(workspace: Path, tmp_path: Path) -> None:
    run_app("search", "a red square", "--index", tmp_path / "index", cwd=workspace)
    assert (tmp_path / "index" / "index.npz").is_file()
    made = workspace / "features"
    before = contents(made)
    with pytest.raises(
        ConfigError, match=r"features, which holds features: .* Name another folder"
    ):
        run_app("search", "a red square", "--index", made, cwd=workspace)
    assert contents(made) == before


def test_in_a_workspace_its_store_is_searched(workspace: Path, clips: Path) -> None:
    hit = run_json("search", "--like", "sub/2.mp4@4", cwd=workspace)["hits"][0]
    assert (hit["video_id"], hit["path"]) == ("sub/2.mp4", str(clips / "sub" / "2.mp4"))


def test_a_store_is_searched_where_its_videos_are_not(workspace: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(workspace, tmp_path / "w")
    write_config(folder, data={"dataset": "folder", "videos": str(tmp_path / "gone")})
    done = run_app("search", "--like", "sub/2.mp4@4", "--json", cwd=folder)
    hit = json.loads(done.stdout)["hits"][0]
    assert (hit["video_id"], hit["path"]) == ("sub/2.mp4", None)
    assert "the files of the videos are not known: the folder of videos is" in done.stderr


@pytest.mark.parametrize("head", ["meanP", "multivector:vectors=2"])
def test_the_head_of_a_run_decides_the_order(workspace: Path, head: str) -> None:
    """Of all videos where an index could serve it, whatever frames say."""
    make_run(workspace / "runs" / "mine", head=head)
    words = ("search", "a red square", "--run", "mine", "--rerank", "1", "--top", "9", "--json")
    done = run_app(*words, cwd=workspace)
    answer = json.loads(done.stdout)
    hits = answer["hits"] or answer["nearest"]
    store = vtr.FeatureStore(workspace / "features", sampler="uniform")
    scores = vtr.score_matrix(["a red square"], store, workspace / "runs" / "mine")[0]
    order = [store.ids[n] for n in np.argsort(-scores)]
    assert [hit["video_id"] for hit in hits] == order
    np.testing.assert_allclose([h["score"] for h in hits], np.sort(scores)[::-1], atol=1e-5)
    few = (*words[:4], "--top", "2", "--all-moments", "--json")
    answer = json.loads(run_app(*few, cwd=workspace).stdout)
    found = [hit["video_id"] for hit in answer["hits"] or answer["nearest"]]
    assert list(dict.fromkeys(found)) == order[: len(set(found))]
    with pytest.raises(ConfigError, match="by sentences alone"):
        run_app("search", "--like", "0.mp4@1", "--run", "mine", cwd=workspace)


@pytest.mark.parametrize("head", ["eercf:layers=1", "tokenbinder"])
def test_a_head_that_recalls_reorders_what_it_found(workspace: Path, head: str) -> None:
    run = make_run(workspace / "runs" / "gated", head=head, moved=0.5)
    words = ("a red square", "a ball", "--not", "blue", "--run", "gated", "--json", "--rerank", "2")
    done = run_app("search", *words, cwd=workspace)
    answer = json.loads(done.stdout)
    store = vtr.FeatureStore(workspace / "features", sampler="uniform")
    backbone = vtr.load_backbone(MODEL, device="cpu")
    texts = vtr.embed_texts(backbone, ["a red square", "a ball", "blue"], tokens=True)
    scorer = vtr.Scorer(vtr.load_run(run).model, texts, store.packed())
    scorer.candidates = 2

    def combined(matrix: np.ndarray) -> np.ndarray:
        return (matrix[0] + matrix[1] - matrix[2]) / 2

    recall, scores = combined(scorer.recall()), combined(scorer.matrix())
    first, *rest = np.split(np.argsort(-recall), [2])
    order = [*first[np.argsort(-scores[first])], *rest[0]]
    found = [hit["video_id"] for hit in answer["hits"] or answer["nearest"]]
    assert found == [store.ids[n] for n in order]


def test_from_python(clips: Path, tmp_path: Path) -> None:
    answer = vtr.search(clips, like=["sub/2.mp4@4"], top=1, cut_list=tmp_path / "list.csv")
    assert [hit.video_id for hit in answer.hits] == ["sub/2.mp4"]
    assert "sub/2.mp4" in (tmp_path / "list.csv").read_text()
    assert "top" in inspect.signature(vtr.search).parameters
    with pytest.raises(ConfigError, match="nothing to search for"):
        vtr.search(clips)
    with pytest.raises(ConfigError, match=r"must end in \.png"):
        vtr.search(clips, like="sub/2.mp4@4", contact_sheet="sheet.jpg")
    with pytest.raises(UnknownNameError, match="tops"):
        vtr.search(clips, "x", tops=3)


def test_from_python_one_alone_stands_for_a_list_and_a_path_for_a_text(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = vtr.search(clips, like="sub/2.mp4@4", without="snow", top=1, model=Path(MODEL))
    assert [hit.video_id for hit in answer.hits] == ["sub/2.mp4"]
    clip = vtr.search(clips, video=clips / "sub" / "2.mp4", at=4, top=1)
    assert [hit.video_id for hit in clip.hits] == ["sub/2.mp4"]
    for wrong in (1, None, ["a", "b"]):
        with pytest.raises(ConfigError, match=r"a sentence is .*; it must be a text"):
            vtr.search(clips, wrong)  # type: ignore[arg-type]
    monkeypatch.chdir(clips)
    with pytest.raises(ConfigError, match="no folder named"):
        vtr.search(None, "x")


def test_a_folder_that_cannot_be_listed_is_named_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from vtr.searching import folder as module

    write_clip(tmp_path / "a.mp4", patchwork(2))
    source = module.FolderSource(tmp_path, model=MODEL, device="cpu", workers=1)
    listing = module.find_videos(tmp_path)
    locked = dataclasses.replace(listing, unreadable=(("locked", "Permission denied"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_videos", lambda _: locked)
        source.refresh()
        source.refresh()
    assert capfd.readouterr().err.count("locked cannot be listed") == 1


def test_a_search_takes_the_text_tower_alone(clips: Path) -> None:
    done = run_process(
        "search", clips, "a red square",
        PYTHONPROFILEIMPORTTIME="1", PYTHONPATH=str(Path(vtr.__file__).parent.parent),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "torch" in loaded
    assert not any(name.startswith("transformers") for name in loaded)

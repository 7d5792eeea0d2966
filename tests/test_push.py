"""Runs and stores to the hub and back: a real HTTP server of our own stands in for it."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    contents,
    full_disk,
    kill_when,
    make_demo_workspace,
    make_run,
    random_rows,
    random_store,
    run_app,
    run_json,
    start_python,
    write_store,
)
from hub_server import TOKEN, Hub, serving
from huggingface_hub.repocard import metadata_load

import vtr
from tests import test_export as exports
from vtr.api.hub import Manifest, split_name
from vtr.api.push import Push
from vtr.demo import demo_model_folder
from vtr.errors import (
    ConfigError,
    HubError,
    HubOfflineError,
    ModelError,
    StoreError,
    StoreWriteError,
    VtrError,
)  # fmt: skip
from vtr.features.engine_check import EngineCheck, read_engine_check
from vtr.features.lock import write_lock
from vtr.features.shard import list_shards, write_shard
from vtr.files import publish

STORE = ("datasets", "me/clips")
RUN = ("models", "me/run")


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("vtr.api.hub._PAUSE_SECONDS", 0.0)
    with serving() as server:
        yield server
        assert not server.leaked


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return random_store(tmp_path / "features", ["a"])


def push(hub: Hub, target: str | Path, repo: str = "me/clips", **options: Any) -> Push:
    return vtr.push(target, repo, hub_url=hub.url, **options)


def pull(hub: Hub, repo: str = "me/clips", folder: str | Path | None = "got", **more: Any) -> Path:
    return vtr.pull(repo, folder, hub_url=hub.url, **more)


def several_shards(folder: Path, count: int = 3) -> Path:
    random_store(folder, ["a0"])
    spec = vtr.FeatureStore(folder).spec
    for number in range(1, count):
        write_store(folder, random_rows([f"a{number}"], spec), spec, sequence=number)
    return folder


# ---- there and back


def test_a_store_comes_back_bit_by_bit(hub: Hub, tmp_path: Path) -> None:
    store = several_shards(tmp_path / "features")
    (store / "extract.json").write_text('{"root": "/home/me"}')
    (store / "texts").mkdir()
    told = push(hub, store)
    held = hub.repos[STORE].files
    assert told.sent == [*sorted(p.name for p in store.glob("*.h5")), "README.md", "vtr.json"]
    assert set(held) == {".gitattributes", *told.sent}
    card = tmp_path / "card.md"
    card.write_bytes(held["README.md"])
    assert metadata_load(card)["library_name"] == "vtr"
    made = pull(hub)
    assert made == Path("got")
    for path in store.glob("*.h5"):
        assert (made / path.name).read_bytes() == path.read_bytes()
    ours, theirs = vtr.FeatureStore(store).packed(), vtr.FeatureStore(made).packed()
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.md", "features", "got"]


def test_how_far_an_engine_was_from_float32_goes_along(hub: Hub, tmp_path: Path) -> None:
    store = several_shards(tmp_path / "features")
    fingerprint = vtr.FeatureStore(store).fingerprint
    stamp = EngineCheck(fingerprint, 64, 200, 0.9712, 0.99, 1.0, falls_short=True)
    stamp.write(store, (1, 1))
    push(hub, store)
    assert "worst cosine 0.9712" in hub.repos[STORE].files["README.md"].decode()
    assert read_engine_check(pull(hub), fingerprint) == stamp


def test_a_second_push_sends_what_has_changed(hub: Hub, tmp_path: Path) -> None:
    store = several_shards(tmp_path / "features", 2)
    push(hub, store)
    assert push(hub, store).sent == []
    assert hub.counted("POST", "/commit/") == 1
    before = sorted(p.name for p in store.glob("*.h5"))
    several_shards(store, 3)
    new = sorted({p.name for p in store.glob("*.h5")} - set(before))
    (store / before[1]).unlink()
    told = push(hub, store)
    assert set(told.sent) == {*new, "vtr.json"}, "the card says the same"
    assert told.deleted == [before[1]]
    assert hub.counted("PUT", "/lfs/") == 3
    # Who pulls it again fetches the new shard alone.
    first = pull(hub, revision=list(hub.repos[STORE].commits)[1])
    with pytest.raises(ConfigError, match="got is in use and holds something else"):
        pull(hub)
    hub.sent.clear()
    pull(hub, overwrite=True)
    assert sum("/cdn/" in path for path in hub.sent) == 1
    assert sorted(p.name for p in first.glob("*.h5")) == sorted(p.name for p in store.glob("*.h5"))
    hub.sent.clear()
    pull(hub)
    assert list(hub.sent) == ["vtr.json"]


def test_a_pulled_run_evaluates(hub: Hub, tmp_path: Path) -> None:
    make_demo_workspace(tmp_path, [f"test{n}" for n in range(4)])
    world = vtr.open_workspace(tmp_path)
    make_run(tmp_path / "runs" / "one")
    before = vtr.evaluate_run(world, tmp_path / "runs" / "one", device="cpu").metrics
    told = push(hub, "one", "run", private=True)
    assert told.repository == "me/run"
    repo = hub.repos[RUN]
    assert repo.private
    assert str(tmp_path).encode() not in b"".join(repo.files.values())
    assert str(demo_model_folder()).encode() not in b"".join(repo.files.values())
    assert b"red" not in b"".join(repo.files.values()), "captions"
    made = pull(hub, "me/run", "runs/two")
    assert vtr.evaluate_run(world, made, device="cpu").metrics == before
    elsewhere = vtr.open_workspace(tmp_path, model="me/absent")
    with pytest.raises(ModelError, match=r"the folder model where it was trained.*--model"):
        vtr.evaluate_run(elsewhere, made, device="cpu")
    push(hub, "one", "me/with", with_model=True)
    brought = pull(hub, "me/with", "runs/three")
    assert vtr.evaluate_run(elsewhere, brought, device="cpu").metrics == before


def test_numbers_go_to_the_card_and_captions_only_when_asked(hub: Hub, tmp_path: Path) -> None:
    run = exports.tiny_run(
        tmp_path / "run", data={"dataset": "msrvtt"}, text_model={"id": "openai/clip"}
    )
    document = exports.result() | {
        "examples": {"t2v": [{"rank": 1, "text": "a secret caption"}]},
        "videos": {"paths": {"a": str(tmp_path / "a.mp4")}},
    }
    exports.put_result(run, document)
    push(hub, run, "me/run")
    files = hub.repos[RUN].files
    card = tmp_path / "card.md"
    card.write_bytes(files["README.md"])
    front = metadata_load(card)
    assert front["base_model"] == "openai/clip"
    assert front["datasets"] == ["msrvtt"]
    assert front["library_name"] == "vtr"
    assert front["metrics"] == ["recall"]
    (entry,) = front["model-index"]
    assert entry["results"][0]["metrics"][0]["value"] == 40.0
    assert not any("secret" in text.decode("latin-1") for text in files.values())
    told = push(hub, run, "me/run", results=True)
    assert told.sent == ["eval/1k-A/result.json", "vtr.json"]
    sent = hub.repos[RUN].files["eval/1k-A/result.json"]
    assert b"a secret caption" in sent
    assert str(tmp_path).encode() not in sent


def test_an_edited_card_stays(hub: Hub, store: Path) -> None:
    push(hub, store)
    repo = hub.repos[STORE]
    repo.branches["main"] = repo.add({**repo.files, "README.md": b"mine", "LICENSE": b"MIT"})
    several_shards(store, 2)
    assert "README.md" not in push(hub, store).sent
    assert repo.files["README.md"] == b"mine"
    assert (pull(hub) / "README.md").read_bytes() == b"mine"


def test_a_dry_run_says_what_would_go_up_and_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = make_run(tmp_path / "run")
    address = "http://127.0.0.1:9"
    result = run_app("push", run, "me/run", "--dry-run", "--private", "--hub-url", address)
    assert "would push the run run to me/run, private where it is new: 5 files" in result.stderr
    assert "no captions, no videos" in result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "best.safetensors", "train_ids.txt", "config.json",
    ]  # fmt: skip


def test_branches_are_made_and_pulled(hub: Hub, tmp_path: Path) -> None:
    store = several_shards(tmp_path / "features", 1)
    push(hub, store)
    several_shards(store, 2)
    push(hub, store, revision="v2")
    assert len(vtr.FeatureStore(pull(hub))) == 1
    assert len(vtr.FeatureStore(pull(hub, folder="two", revision="v2"))) == 2
    with pytest.raises(HubError, match="datasets/me/clips has no revision 'v3'"):
        pull(hub, folder="three", revision="v3")


def test_the_command_prints_where_it_went(hub: Hub, tmp_path: Path) -> None:
    random_store(tmp_path / "fe atures é", ["a"])
    assert (
        run_json("push", "fe atures é", "clips", "--hub-url", hub.url)["repository"] == "me/clips"
    )
    again = run_app("push", "fe atures é", "clips", "--hub-url", hub.url)
    assert "nothing new sent, 1 file proven" in again.stdout
    got = run_app("pull", "datasets/me/clips", "--hub-url", hub.url)
    assert got.stdout == "datasets/me/clips -> clips\n"
    assert "is what datasets/me/clips holds" in run_app(
        "pull", "me/clips", "--hub-url", hub.url
    ).stderr  # fmt: skip


# ---- interrupted


def start(hub: Hub, *words: str | Path) -> subprocess.Popen[str]:
    return start_python("-m", "vtr", *words, "--hub-url", hub.url, HF_HUB_OFFLINE="0")


@pytest.mark.slow
def test_a_killed_push_goes_on(hub: Hub, tmp_path: Path) -> None:
    store = several_shards(tmp_path / "features")
    hub.stall = 2  # the third upload never ends
    kill_when(lambda: len(hub.objects) == 2, start(hub, "push", store, "me/clips"))
    assert "vtr.json" not in hub.repos[STORE].files
    with pytest.raises(HubError, match=r"is nothing that vtr push finished: it has no vtr.json"):
        pull(hub)
    hub.stall = None
    before = hub.counted("PUT", "/lfs/")
    push(hub, store)
    assert hub.counted("PUT", "/lfs/") - before == 1
    assert len(vtr.FeatureStore(pull(hub))) == 3


@pytest.mark.slow
def test_a_killed_pull_goes_on_within_a_file(hub: Hub, tmp_path: Path) -> None:
    store = random_store(tmp_path / "features", ["a"], num_frames=20_000)
    push(hub, store)
    (size,) = (path.stat().st_size for path in store.glob("*.h5"))
    hub.pace = 1 << 20, 0.2  # bytes, and seconds after them
    work = tmp_path / ".unfinished" / "got.pull"
    parts = lambda: sum(p.stat().st_size for p in work.glob("*.part"))  # noqa: E731
    kill_when(lambda: parts() > 1 << 20, start(hub, "pull", "me/clips", "got"))
    assert not (tmp_path / "got").exists()
    here, hub.pace = parts(), None
    hub.sent.clear()
    pull(hub)
    assert sum(v for k, v in hub.sent.items() if "/cdn/" in k) == size - here
    assert len(vtr.FeatureStore("got")) == 1
    assert not work.exists()


@pytest.mark.slow
def test_what_was_fetched_outlives_a_kill_at_the_end(hub: Hub, tmp_path: Path) -> None:
    push(hub, several_shards(tmp_path / "features"))
    program = (
        "import os, signal, sys, vtr, vtr.files\n"
        "vtr.files.take_place = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "vtr.pull('me/clips', 'got', hub_url=sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, hub.url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not Path("got").exists()
    hub.sent.clear()
    assert len(vtr.FeatureStore(pull(hub))) == 3
    assert not [path for path in hub.sent if "/cdn/" in path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "got"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_line_that_breaks_is_taken_up_again(hub: Hub, tmp_path: Path, ranges: bool) -> None:
    store = random_store(tmp_path / "features", ["a"], num_frames=200)
    push(hub, store)
    hub.cut, hub.ranges = 20_000, ranges
    if not ranges:  # it begins anew each time, and never ends
        with pytest.raises(HubOfflineError, match=r"run the same command again"):
            pull(hub)
        hub.cut = None
    pull(hub)
    assert len(vtr.FeatureStore("got")) == 1


def test_two_pulls_of_one_folder_do_not_mix(hub: Hub, store: Path, tmp_path: Path) -> None:
    push(hub, store)
    with (
        write_lock(tmp_path / ".unfinished" / "got.pull"),
        pytest.raises(HubError, match="another vtr pull is filling got"),
    ):
        pull(hub)


def retry_first(store: Path) -> None:
    """Replaces the first shard as a retry does."""
    (name, path), *_ = list_shards(store)[0]
    spec = vtr.FeatureStore(store).spec
    pad = np.zeros(spec.embedding_dim, np.float32)
    rows = random_rows(["a0"], spec, seed=name.revision + 1)
    write_shard(
        store, rows, spec=spec, slot=name.slot, revision=name.revision + 1, pad_embedding=pad
    )
    path.unlink()


@pytest.mark.parametrize("what", ["a shard", "the weights"])
def test_what_is_replaced_while_it_is_pushed_makes_no_commit(
    hub: Hub, tmp_path: Path, what: str
) -> None:
    """Digests and files of two states would make a repository that nobody can pull."""
    if what == "a shard":
        place = several_shards(tmp_path / "features")
        change = lambda: retry_first(place)  # noqa: E731
    else:
        place = make_run(tmp_path / "runs/r")
        weights = place / "best.safetensors"
        change = lambda: publish(weights, weights.read_bytes()[:-4] + b"1234")  # noqa: E731

    def heard(request: str) -> None:
        if request.startswith("GET /api/") and hub.heard is heard:
            hub.heard = lambda request: None
            change()

    hub.heard = heard
    with pytest.raises(StoreError, match=r"was replaced while it was pushed, and the push is not "):
        push(hub, place)
    if what == "a shard":
        assert hub.repos[STORE].files.keys() <= {".gitattributes"}
        push(hub, place)
        assert len(vtr.FeatureStore(pull(hub))) == 3
    else:
        assert not any("best" in name for repo in hub.repos.values() for name in repo.files)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_written_into_the_folder_while_it_is_pulled_stays(
    hub: Hub, store: Path, tmp_path: Path, overwrite: bool
) -> None:
    push(hub, store)
    got = tmp_path / "got"
    with contextlib.ExitStack() as stack:

        def extract() -> None:
            stack.enter_context(write_lock(got))
            random_store(got, ["b"])

        hub.heard = lambda request: "/cdn/" in request and not got.exists() and extract()
        message = r"got is (in use and holds|being written by process \d+)"
        with pytest.raises(VtrError, match=message):
            pull(hub, overwrite=overwrite)
        assert vtr.FeatureStore("got").ids == ("b",)
    hub.heard = lambda request: None
    hub.sent.clear()
    assert vtr.FeatureStore(pull(hub, overwrite=True)).ids == ("a",)
    assert not [path for path in hub.sent if "/cdn/" in path]


# ---- what is wrong


@pytest.mark.parametrize("how", ["served", "committed"])
def test_a_file_with_another_digest_is_kept_apart(hub: Hub, store: Path, how: str) -> None:
    push(hub, store)
    (path,) = store.glob("*.h5")
    wrong = path.read_bytes()[:-1] + b"?"
    repo = hub.repos[STORE]
    if how == "served":
        hub.spoil[path.name] = wrong + b"and much more" * 1000
    else:
        repo.branches["main"] = repo.add({**repo.files, path.name: wrong})
    with pytest.raises(
        HubError, match=rf"^{path.name} of .* is not what was pushed.*kept apart as"
    ):
        pull(hub)
    (apart,) = Path(".unfinished/got.pull").glob("damaged-*")
    assert apart.name == f"damaged-{path.name}"
    assert not Path("got").exists()
    hub.spoil.clear()
    repo.branches["main"] = list(repo.commits)[1]
    assert len(vtr.FeatureStore(pull(hub))) == 1


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("vtr.api.hub.MAX_DOCUMENT_BYTES", 100, HubError, r"vtr.json of datasets/me/clips has .*;"),
        ("vtr.api.pull._MARGIN", 1 << 60, StoreWriteError, "pulling needs .* more, and the disk"),
        ("gated", {"me/clips"}, HubError, "answers 403.*of a gated one accept the terms"),
        ("portal", True, HubError, "does not answer as a hub does"),
    ],
)
def test_what_cannot_be_pulled(
    hub: Hub, store: Path, name: str, value: Any, error: type[VtrError], message: str
) -> None:
    push(hub, store)
    with pytest.MonkeyPatch.context() as patch:
        if "." in name:
            patch.setattr(name, value)
        else:
            patch.setattr(hub, name, value)
        with pytest.raises(error, match=message):
            pull(hub)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corrupt_commits", "with another digest than it has here, after it was sent"),
        ("portal", "does not answer as a hub does"),
    ],
)
def test_what_cannot_be_pushed(hub: Hub, store: Path, name: str, message: str) -> None:
    setattr(hub, name, True)
    with pytest.raises(HubError, match=message):
        push(hub, store)


def test_repositories_of_another_kind_are_refused(hub: Hub, store: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    hub.add("models", "me/clip", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(HubError, match=r"me/clip holds something that vtr did not push \(model"):
        push(hub, run, "me/clip")
    with pytest.raises(HubError, match=r"me/clip is nothing that vtr push.*--model me/clip"):
        pull(hub, "me/clip")
    with pytest.raises(ConfigError, match=r"is the name of a store, and .*run is a run"):
        push(hub, run, "datasets/me/run")
    push(hub, store)
    with pytest.raises(HubError, match=r"made with other settings \(fingerprint"):
        push(hub, random_store(tmp_path / "other", ["a"], num_frames=2))
    push(hub, run, "me/clips")
    with pytest.raises(ConfigError, match="a model and a data set me/clips: choose with --kind"):
        pull(hub)
    assert vtr.load_run(pull(hub, kind="run"))
    files = hub.repos[STORE].files
    hub.add("models", "me/wrong", files)
    with pytest.raises(HubError, match=r"says in its vtr.json that it is a store, and is none"):
        pull(hub, "me/wrong", "wrong")
    hub.add("datasets", "me/half", {k: v for k, v in files.items() if not k.endswith(".h5")})
    with pytest.raises(HubError, match=r"lacks shard-.*which its vtr.json lists"):
        pull(hub, "me/half", "half")
    push(hub, store, "me/open")
    with pytest.raises(HubError, match=r"is there already and public: --private counts for new"):
        push(hub, store, "me/open", private=True)


def read_manifest(**changes: Any) -> None:
    document = {
        "schema": 1, "kind": "store", "identity": "x", "version": "1", "card": "",
        "files": {"a": "0" * 64}, "sizes": {"a": 1}, **changes,
    }  # fmt: skip
    Manifest.read(json.dumps(document).encode(), "here")


@pytest.mark.parametrize(
    "name", [
        "../x", "/etc/x", "a/../../x", "a//b", ".hidden", "a\\b", "vtr.json", "a\nb", "",
        "pulled.json", "x" * 256, "é" * 128, "f/x",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(HubError, match="which no vtr push writes"):
        read_manifest(files=dict.fromkeys(["f", name], "0" * 64), sizes={"f": 1, name: 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"has schema 2; this vtr reads schema 1"),
        ({"kind": "space"}, r"kind is 'space'"),
        ({"sizes": {}}, r"lists 'a', which no"),
        ({"sizes": {"a": -1}}, r"lists 'a', which no"),
        ({"files": {"a": "12"}}, r"lists 'a', which no"),
        ({"more": 1}, r"has unknown 'more'"),
    ],
)
def test_manifests_of_strangers_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HubError, match=message):
        read_manifest(**change)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "me/", "-x/y", "a b/c", "me/x.git", "me/--", "me/é", "me/" + "x" * 97]
)
def test_names_of_repositories(name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository: OWNER/NAME"):
        split_name(name)


def test_what_is_neither_run_nor_store(hub: Hub, store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (
        ("absent", "does not exist"),
        (".", "holds neither a run nor shards"),
        ("file", "is a file"),
    ):
        with pytest.raises(ConfigError, match=f"nothing to push: .*{why}"):
            push(hub, name)
    with pytest.raises(ConfigError, match="--results and --with-model are for runs"):
        push(hub, store, results=True)
    (path,) = store.glob("*.h5")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VtrError, match="is damaged"):
        push(hub, store)
    assert not hub.requests
    push(hub, random_store(tmp_path / "whole", ["a"]))
    with pytest.raises(ConfigError, match="file is a file; name a folder to make"):
        pull(hub, folder="file")


def test_links_that_lead_out_of_a_run_do_not_go_up(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "secret").write_text("1\n")
    (run / "train_ids.txt").unlink()
    (run / "train_ids.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match=r"is a link to .*secret, outside of the run"):
        push(hub, run, "me/run")
    assert not hub.requests


def test_large_stores_take_several_commits(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.api.push._MOST_FILES", 2)
    store = several_shards(tmp_path / "features", 5)
    hub.fail = {"POST .*/commit/.*": [0, 500]}
    with pytest.raises(HubError, match="answers 500"):
        push(hub, store)
    assert len(hub.repos[STORE].files) == 3
    with pytest.raises(HubError, match="is nothing that vtr push finished"):
        pull(hub)
    hub.fail = {}
    assert len(push(hub, store).sent) == 5
    assert hub.counted("POST", "/commit/") == 4
    assert len(vtr.FeatureStore(pull(hub))) == 5


def test_what_is_no_name_and_no_path(hub: Hub, store: Path) -> None:
    wrong: Any = 3
    with pytest.raises(ConfigError, match="target is 3; it must be the folder of a run or a store"):
        vtr.push(wrong, "me/clips")
    for ask in (lambda: vtr.push(store, wrong), lambda: vtr.pull(wrong)):
        with pytest.raises(ConfigError, match="the repository is 3; it must be a text"):
            ask()
    with pytest.raises(ConfigError, match=r"whose clips[?] Name the repository as OWNER/NAME"):
        vtr.pull("clips")
    push(hub, store)
    with pytest.raises(ConfigError, match="folder is 3; it must be a path"):
        pull(hub, folder=wrong)


# ---- refused


def test_without_a_token(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(hub, store, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"needs a token.*settings/tokens.*hf auth login.*HF_TOKEN"):
        push(hub, store)
    with pytest.raises(HubError, match=r"no model and no data set me/clips, or .* hf auth login"):
        pull(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for ask in (lambda: push(hub, store), lambda: pull(hub)):
        with pytest.raises(HubError, match=r"answers 401 .*not valid \(any more\)") as told:
            ask()
        assert "hf_wrong" not in str(told.value)
    monkeypatch.setenv("HF_TOKEN", "hf_with blank é")
    with pytest.raises(HubError, match=r"has blanks or letters that no token has") as told:
        push(hub, store)
    assert "hf_with" not in str(told.value)


LISTING, COMMIT, MAKING = "GET .*/tree/.*", "POST .*/commit/.*", "POST /api/repos/.*"


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (MAKING, 403, "needs the right to write"),
        (MAKING, 429, "wait some minutes"),
        (LISTING, 401, "not valid"),
        (LISTING, 500, "The hub has trouble"),
        (COMMIT, 401, "not valid"),
        (COMMIT, 403, "needs the right to write"),
        (COMMIT, 404, "not there"),
        (COMMIT, 409, "Somebody else changes it"),
        (COMMIT, 500, "The hub has trouble"),
    ],
)
def test_a_hub_that_refuses(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch, request_: str, status: int,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.fail[request_] = [status]
    with pytest.raises(HubError, match=rf"answers {status} .*{message}") as told:
        push(hub, store)
    assert TOKEN[:6] not in str(told.value), "the stand-in says it in its answers"
    assert "\n" not in str(told.value)
    hub.fail.clear()
    assert push(hub, store).commit


def test_a_hub_that_stumbles(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.fail = {"PUT /lfs/.*": [500, 429, 0]}
    push(hub, store)
    told = capsys.readouterr().err
    assert told.count("the hub does not take it just now: Retrying in") == 2
    assert "/lfs/" not in told
    hub.fail = {"PUT /lfs/.*": [503]}
    several_shards(store, 3)
    with pytest.raises(HubError, match=r"answers 503.*what it has is not sent again"):
        push(hub, store)


def test_nobody_there(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    address = "http://127.0.0.1:9"
    for ask in (
        lambda: vtr.push(store, "me/clips", hub_url=address),
        lambda: vtr.push(store, "clips", hub_url=address),
        lambda: vtr.pull("me/clips", tmp_path / "got", hub_url=address),
    ):
        with pytest.raises(HubOfflineError, match=r"127.0.0.1:9 cannot be reached"):
            ask()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubOfflineError, match="HF_HUB_OFFLINE is set"):
        vtr.pull("me/clips", tmp_path / "got", hub_url=address)


@pytest.mark.parametrize("name", ["clips", "me/clips"])
def test_a_hub_that_says_nothing(
    hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("vtr.api.hub._LOOK_SECONDS", 0.1)
    hub.silent = True
    for ask in (lambda: push(hub, store, name), lambda: pull(hub)):
        with pytest.raises(HubOfflineError, match=r"cannot be reached \(.*timed out"):
            ask()


def test_a_full_disk_keeps_what_came(hub: Hub, tmp_path: Path) -> None:
    store = random_store(tmp_path / "features", ["a"], num_frames=2000)
    push(hub, store)
    (size,) = (path.stat().st_size for path in store.glob("*.h5"))
    with (
        full_disk(100_000),
        pytest.raises(StoreWriteError, match="What was fetched before is kept"),
    ):
        pull(hub)
    (part,) = Path(".unfinished/got.pull").glob("*.part")
    assert part.stat().st_size == 100_000
    hub.sent.clear()
    pull(hub)
    assert sum(v for k, v in hub.sent.items() if "/cdn/" in k) == size - 100_000


def test_a_folder_that_nobody_may_write(hub: Hub, store: Path, tmp_path: Path) -> None:
    push(hub, store)
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match=r"cannot make the folder .*Choose another with FOLD"):
        pull(hub, folder="file/in/it")


def test_no_token_in_any_file(hub: Hub, tmp_path: Path) -> None:
    push(hub, make_run(tmp_path / "run"), "me/run")
    pull(hub, "me/run")
    for name, content in contents(tmp_path).items():
        assert TOKEN.encode() not in content, name
    for name, content in hub.repos[RUN].files.items():
        assert TOKEN.encode() not in content, name

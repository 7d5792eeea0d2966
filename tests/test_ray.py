"""Work on Ray: real clusters, real actors, real kills."""

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import (
    free_port,
    numbered,
    patchwork,
    run_app,
    run_process,
    shards,
    wait_until,
    write_clip,
)

import vtr
from vtr.clip.device import ENGINES
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError
from vtr.extract.cluster import Cluster, connected, num_parts
from vtr.extract.nodes import Sight, look
from vtr.settings import flags, merge
from vtr.verbs.extract import Options

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray: pip install 'vtr[ray]'"
)
HOW = ("--frames", "4", "--fps", "native", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for n in range(24):
        write_clip(folder / f"clip {n:02d}.mp4", patchwork(6 + n % 5, seed=n))
    (folder / "no video.mp4").write_bytes(b"nothing")
    return folder


def where(videos: Path, store: Path) -> list[str]:
    named = {"videos": videos, "model": demo_model_folder(), "features": store}
    return ["--dataset", "folder", *(w for k, v in named.items() for w in (f"--{k}", str(v)))]


@needs_ray
@pytest.mark.slow
def test_two_actors_make_the_bytes_of_plain_parts(videos: Path, tmp_path: Path) -> None:
    done = run_process(
        "extract", *where(videos, tmp_path / "ray"), *HOW, "--ray", "--parts", "5",
        "--cpus-per-worker", "1",
    )  # fmt: skip
    assert "25 videos = 24 ok + 0 partial + 1 failed" in done.stdout, done.stderr
    assert done.returncode == 3
    for part in range(1, 6):
        run_app(
            "extract", *where(videos, tmp_path / "plain"), *HOW, "--shard", f"{part}/5", code=None
        )
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")
    # Batches end with shards: cut otherwise, products differ in the last bit.
    run_app("extract", *where(videos, tmp_path / "whole"), *HOW, code=3)
    ray, whole = (vtr.FeatureStore(tmp_path / name) for name in ("ray", "whole"))
    np.testing.assert_allclose(ray.packed(whole.ids).frames, whole.packed().frames, atol=2e-3)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port whose owner answers something that is not Ray's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            line, _ = server.accept()
            with line:
                line.recv(24)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@needs_ray
def test_a_cluster_that_is_not_there_is_refused_at_once() -> None:
    port = free_port()
    message = rf"no Ray can be reached at 127\.0\.0\.1:{port}: Connection refused\. `ray status`"
    with pytest.raises(ConfigError, match=message), connected(f"127.0.0.1:{port}"):
        pass


@needs_ray
def test_what_is_no_ray_is_refused_at_once(listener: int) -> None:
    message = rf"what answers at 127\.0\.0\.1:{listener} is no Ray\. Name the port"
    with pytest.raises(ConfigError, match=message), connected(f"127.0.0.1:{listener}"):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray": "10.0.0.1"}, "--ray is '10.0.0.1'; it must be HOST:PORT of the head node"),
        ({"ray": "host:0"}, "--ray is 'host:0'; it must be HOST:PORT"),
        ({"ray": "ray://head:10001"}, "a port of Ray's client, which vtr does not speak"),
        ({"parts": 3}, "--parts is about Ray's workers; it needs --ray"),
        ({"ray": "auto", "shard": "1/2"}, "--shard and --ray exclude each other"),
        ({"ray": "auto", "overwrite": True}, "delete the store first"),
        ({"ray": "auto", "parts": 100_000}, "--parts is 100000; it must be a whole number"),
        ({"ray": "auto", "cpus_per_worker": 0}, "--cpus-per-worker is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merge(Options, [flags(options)])


@pytest.mark.parametrize(
    "words", [("extract", "--videos", "V"), ("compress", "V", "C"), ("data", "verify", "folder")]
)
def test_processes_of_this_machine_are_not_rays(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "V").mkdir()
    for more in (("--ray", "--workers", "3"), ("--ray", "auto", "--workers", "1")):
        message = "--workers is about the processes of this machine, and with --ray .* give --cpus-"
        with pytest.raises(ConfigError, match=message):
            run_app(*words, *more, cwd=tmp_path)


def test_what_decodes_nothing_is_not_shared_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ray shares out the decoding, and --fast decodes noth"):
        run_app("data", "verify", "folder", "--videos", tmp_path, "--fast", "--ray")


@pytest.mark.parametrize(
    ("options", "cards"),
    [({}, 1), ({"device": "cpu"}, 0), ({"engine": "openvino"}, 0), ({"gpus_per_worker": 2}, 2)],
)
def test_only_what_computes_there_is_given_a_card(options: dict[str, Any], cards: int) -> None:
    for package in ENGINES[options.get("engine", "torch")]:
        pytest.importorskip(package)
    node = {"Alive": True, "Resources": {"CPU": 4, "GPU": 2}}
    cluster = Cluster(SimpleNamespace(nodes=lambda: [node]))
    asked = Options(ray="auto", **options)
    share = cluster.share(cpus=None, gpus=asked.gpus_per_worker, on_cpu=asked.on_cpu)
    assert (share.cpus, share.gpus) == (4, cards)


def test_a_node_without_the_engine_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "onnx", ("no_such_package",))
    message = "engine onnx needs no_such_package: pip install 'vtr[onnx]'"
    assert look(Sight(tmp_path, (), engine="onnx")) == message
    assert look(Sight(tmp_path, ())) is None


def test_parts_are_large_enough_to_be_worth_their_start() -> None:
    assert [num_parts(n, 2) for n in (0, 3, 1_000, 1_000_000)] == [1, 3, 8, 245]


@needs_ray
@pytest.mark.slow
def test_a_cluster_copies_and_checks_as_one_process_does(videos: Path, tmp_path: Path) -> None:
    how = ("--size", "32", "--json")
    ray = run_process("compress", videos, tmp_path / "ray", *how, "--ray", "--cpus-per-worker", "1")
    plain = run_process("compress", videos, tmp_path / "plain", *how)
    assert ray.returncode == plain.returncode == 3, ray.stderr
    reports = [json.loads(done.stdout) for done in (ray, plain)]
    assert reports[0]["ok"] == 24
    assert reports[0]["failures"] == reports[1]["failures"]
    copies = [sorted(p.name for p in (tmp_path / n).glob("*.mp4")) for n in ("ray", "plain")]
    assert copies[0] == copies[1]
    rows = [(tmp_path / n / "compress-ledger.jsonl").read_text() for n in ("ray", "plain")]
    for name in copies[0]:
        same = (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
        assert same, [line for text in rows for line in text.splitlines() if name in line]
    verify = ("data", "verify", "folder", "--videos", videos, "--json")
    checked = [json.loads(run_process(*verify, *more).stdout) for more in ((), ("--ray",))]
    assert checked[0] == checked[1]
    assert list(checked[0]["undecodable"]) == ["no video.mp4"]


@needs_ray
@pytest.mark.slow
def test_what_is_printed_is_the_result_though_actors_die(videos: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for n, source in enumerate(sorted(videos.iterdir()) * 8):
        many.mkdir(exist_ok=True)
        os.link(source, many / f"{n:03d} {source.name}")
    verify = ("data", "verify", "folder", "--videos", many, "--json")
    plain = run_process(*verify)
    words = [sys.executable, "-m", "vtr", *map(str, verify), "--ray", "--cpus-per-worker", "1"]
    pipe = subprocess.PIPE
    driver = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True)
    killed = 0
    while killed < 2 and driver.poll() is None:
        killed += kill_one(driver, "ray::_Actor.do")
        time.sleep(0.1)
    output, errors = driver.communicate(timeout=200)
    assert killed, errors
    assert json.loads(output) == json.loads(plain.stdout)
    assert len(json.loads(output)["undecodable"]) == 8


@pytest.fixture(scope="module")
def cluster(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A cluster whose only node with cores has other folders mounted over two of ours."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "file").touch()
    # Ports that the system picks, beside any other Ray; a short path, for sockets are below it.
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    ray += ["--min-worker-port=0", "--max-worker-port=0"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    mount = f'mount -t tmpfs none {hidden} && exec "$@"'
    started: list[subprocess.Popen[str]] = []

    def start(words: list[str]) -> str:
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(words, env=env, text=True, **how))
        said = ""
        for line in started[-1].stdout or ():
            said += line
            if "--block" in line:  # the last it says
                return said
        raise AssertionError(said)

    tmp = Path(tempfile.mkdtemp(prefix="vtr-ray-", dir="/tmp"))
    try:
        here = ["--head", "--port=0", "--include-dashboard=false", "--num-cpus=0"]
        found = re.search(
            r"ray start --address='([^']+)'", start([*ray, *here, f"--temp-dir={tmp}"])
        )
        assert found
        there = ["unshare", "-m", "sh", "-c", mount, "sh", *ray, "--num-cpus=2"]
        start([*there, f"--address={found[1]}"])
        yield found[1], hidden
    finally:
        for process in started[::-1]:
            process.terminate()
            process.communicate(timeout=60)
        shutil.rmtree(tmp, ignore_errors=True)


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to mount: another node's view of the disk is a mount of its own",
)
def test_a_node_that_does_not_see_what_it_needs_is_named(
    cluster: tuple[str, Path], videos: Path, tmp_path: Path
) -> None:
    address, hidden = cluster
    env = {"RAY_AUTH_MODE": "disabled"}
    node = rf"nothing was started\. node {re.escape(socket.gethostname())} \([\d.]+\): "

    def refusal(videos: Path, store: Path, *words: str) -> str:
        asked = [*where(videos, store), *HOW, *words, "--ray", address]
        done = run_process("extract", *asked, **env)
        assert done.returncode == 1, done.stderr
        assert not list(store.glob("shard-*"))
        return " ".join(done.stderr.split())

    shutil.copytree(videos, hidden / "videos")
    seen = refusal(hidden / "videos", tmp_path / "a")
    assert re.search(node + r"it does not see the folder \S+/hidden0/videos", seen), seen
    seen = refusal(videos, hidden / "store")
    assert re.search(node + r"it does not see the folder \S+/hidden0/store", seen), seen
    shutil.copytree(demo_model_folder(), hidden / "model")
    seen = refusal(videos, tmp_path / "b", "--model", f"{hidden}/model")
    assert re.search(node + r"--model \S+/hidden0/model: ", seen), seen
    seen = refusal(videos, tmp_path / "c", "--cpus-per-worker", "3")
    assert re.search(r"no node has 3 cores and 0 GPUs for a worker: .* has 2 cores", seen), seen
    done = run_process(
        "extract", *where(videos, tmp_path / "d"), *HOW, "--ray", address, "--parts", "2", **env
    )
    assert "25 videos = 24 ok" in done.stdout, done.stderr


def test_without_the_extra_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = r"--ray needs the package ray: pip install 'vtr\[ray\]'"
    with pytest.raises(ConfigError, match=message), connected("local"):
        pass
    (tmp_path / "V").mkdir()
    store = ("extract", "--videos", "V", "--features", "F", "--ray")
    verify = ("data", "verify", "folder", "--videos", "V", "--ray")
    for words in (store, (*store, "--dry-run"), ("compress", "V", "C", "--ray"), verify):
        with pytest.raises(ConfigError, match=message):
            run_app(*words, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["V"]  # nothing was begun


def descendants(pid: int) -> dict[int, str]:
    """Processes below one, with how they call themselves."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            parents[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[number] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: names.get(child, "") for child in found - {pid}}


def kill_one(driver: subprocess.Popen[str], what: str) -> bool:
    """Kills a process of a run; returns whether there was one."""
    every = descendants(driver.pid)
    named = sorted(pid for pid, name in every.items() if what in name.split(" ")[0])
    for pid in [driver.pid] if what == "driver" else named[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


@needs_ray
@pytest.mark.slow
def test_ten_kills_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    videos, clip = tmp_path / "videos", tmp_path / "clip.mp4"
    write_clip(clip, [numbered(i, (320, 240)) for i in range(240)], fps=12)
    videos.mkdir()
    for n in range(40):
        os.link(clip, videos / f"clip {n:02d}.mp4")
    cut = ("--sampler", "dense", "--fps", "native", "--device", "cpu", "--shard-videos", "1")
    on_ray = ("--ray", "--parts", "4", "--cpus-per-worker", "1")

    def start(store: Path, *more: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "vtr", "extract", *where(videos, store), *cut, *more]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    for part in range(1, 5):
        run_app("extract", *where(videos, tmp_path / "whole"), *cut, "--shard", f"{part}/4")
    store, chance = tmp_path / "store", random.Random(16)
    victims = ["ray::_Actor", "driver", "ray::_Actor", "ray::_Actor", "raylet"] * 2
    driver = start(store, *on_ray)
    while victims:
        target = len(shards(store)) + 1
        wait_until(lambda t=target: len(shards(store)) >= t, driver)
        time.sleep(chance.uniform(0, 0.5))
        if len(shards(store)) == 40:  # faster than the kills: it must be right, and starts anew
            driver.communicate(timeout=500)
            assert shards(store) == shards(tmp_path / "whole")
            shutil.rmtree(store)
            driver = start(store, *on_ray)
            continue
        if driver.poll() is None and kill_one(driver, victims[0]):
            ends = victims.pop(0) in ("driver", "raylet")
            if shards(store):
                assert vtr.FeatureStore(store).verify() == []
            if not ends:
                continue
        driver.communicate(timeout=120)
        driver = start(store, *on_ray)
    output = driver.communicate(timeout=500)[0]
    if driver.returncode:  # a part may have lost its worker more often than it is tried
        output = start(store, *on_ray).communicate(timeout=500)[0]
    assert "40 videos = 40 ok" in output
    assert shards(store) == shards(tmp_path / "whole")
    assert vtr.FeatureStore(store).duplicates == []

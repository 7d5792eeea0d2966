"""Work on Ray: real clusters, real actors, real kills."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import free_port, patchwork, run_app, run_process, write_clip

import vtr
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError
from vtr.extract.cluster import connected, num_parts
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
    model = str(demo_model_folder())
    return [
        "--videos",
        f"{videos}",
        "--dataset",
        "folder",
        "--model",
        model,
        "--features",
        f"{store}",
    ]


def shards(store: Path) -> list[str]:
    """Their names, with the digest of every byte."""
    return sorted(path.name for path in store.glob("shard-*"))


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
        run_app("extract", *where(videos, tmp_path / "plain"), *HOW, "--shard", f"{part}/5")
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")
    # Batches end with shards: cut otherwise, products differ in the last bit.
    run_app("extract", *where(videos, tmp_path / "whole"), *HOW)
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
    from vtr.settings import flags, merge

    with pytest.raises(ConfigError, match=message):
        merge(Options, [flags(options)])


def test_parts_are_large_enough_to_be_worth_their_start() -> None:
    assert [num_parts(n, 2) for n in (0, 3, 1_000, 1_000_000)] == [1, 3, 8, 245]

"""Several encoders share a run: the same bytes whoever is fast, fails, or is interrupted."""

import _thread
import copy
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import patchwork, run_python, shards, write_clip

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.device import find_devices
from vtr.datasets.registry import load_dataset, resolve_videos, unique_videos
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, ModelError
from vtr.extract.encoders import EncoderGroup
from vtr.extract.pipeline import ExtractReport, extract
from vtr.extract.resume import ExtractMode
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.features import FeatureStore

SETTINGS = ExtractSettings(
    samplers=parse_samplers("dense"), candidate_fps=None, shard_videos=3, workers=2, batch_size=3
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("clips")
    for n in range(7):
        write_clip(folder / f"clip{n}.mp4", patchwork(4 + n, seed=n))
    dataset = load_dataset("folder", videos=folder)
    return list(unique_videos(resolve_videos(dataset, folder)))


@dataclass
class Lane:
    """A real encoder that does something before each batch."""

    backbone: Backbone
    before: Callable[[int], object] = lambda _call: None
    device: str = "cpu"
    calls: int = 0

    def __post_init__(self) -> None:
        self.describe, self.pad_embedding = self.backbone.describe, self.backbone.pad_embedding

    def encode_frames(self, crops: Any) -> Any:
        self.calls += 1
        self.before(self.calls)
        return self.backbone.encode_frames(crops)


def run(clips: Any, store: Path, *lanes: Lane) -> ExtractReport:
    with EncoderGroup(lanes) as encoders:
        return extract(clips, store, encoders, SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(clips: Any, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    extract(clips, store, backbone, SETTINGS)
    return store


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_number_of_encoders_changes_no_byte(
    clips: Any, backbone: Backbone, undisturbed: Path, tmp_path: Path, count: int
) -> None:
    delays = np.random.default_rng(count).random(100) / 50
    lanes = [
        Lane(backbone, lambda call, i=i: time.sleep(delays[(call * count + i) % 100]))  # type: ignore[misc]
        for i in range(count)
    ]
    report = run(clips, tmp_path, *lanes)
    assert shards(tmp_path) == shards(undisturbed)
    assert report.encode_seconds > sum(lane.calls for lane in lanes) * delays.min()


def test_encoders_work_at_the_same_time(clips: Any, backbone: Backbone, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(call: int) -> None:
        if call == 1:
            both.wait()

    assert run(clips, tmp_path, Lane(backbone, meet), Lane(backbone, meet)).ok == 7


def test_a_device_that_fails_is_named_and_costs_no_published_shard(
    clips: Any, backbone: Backbone, undisturbed: Path, tmp_path: Path
) -> None:
    failed = threading.Event()

    def fail(call: int) -> None:
        if call == 3:
            failed.set()
            raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    # So that, however slow the machine is, the one that fails comes to its third batch: a shard has
    # five, and they are waited for.
    other = Lane(backbone, lambda _call: failed.wait(60))
    threads = threading.active_count()
    with pytest.raises(
        ModelError, match=r"failed on cuda:1: CUDA error: unspecified launch failure\. What was"
    ):
        run(clips, tmp_path, other, Lane(backbone, fail, device="cuda:1"))
    assert threading.active_count() == threads
    assert set(shards(tmp_path)) < set(shards(undisturbed))
    run(clips, tmp_path, Lane(backbone))
    assert shards(tmp_path) == shards(undisturbed)


def test_an_interrupt_keeps_what_is_decoded_and_ends_the_threads(
    clips: Any, backbone: Backbone, undisturbed: Path, tmp_path: Path
) -> None:
    batches = itertools.count(1)

    def interrupt(_call: int) -> None:
        if next(batches) == 5:
            _thread.interrupt_main()  # as Ctrl-C does
            time.sleep(0.05)

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path, Lane(backbone, interrupt), Lane(backbone, interrupt))
    assert threading.active_count() == threads
    assert 0 < len(FeatureStore(tmp_path)) < 7
    assert run(clips, tmp_path, Lane(backbone), Lane(backbone)).ok == 7
    ours, right = FeatureStore(tmp_path), FeatureStore(undisturbed)
    for video_id in right:
        np.testing.assert_allclose(ours[video_id].frames, right[video_id].frames, atol=2e-2)


def test_an_interrupt_before_the_encoder_was_judged_publishes_nothing(
    clips: Any, backbone: Backbone, tmp_path: Path
) -> None:
    def judge(_frames: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(clips, tmp_path, backbone, SETTINGS, mode=ExtractMode(check=judge))
    assert not shards(tmp_path)


def test_batches_are_halved_on_the_device_that_has_no_room(
    clips: Any, backbone: Backbone, undisturbed: Path, tmp_path: Path
) -> None:
    sizes: list[int] = []
    tried = threading.Event()
    small = replace(backbone, model=copy.deepcopy(backbone.model))

    def check(_module: object, inputs: tuple[Any, ...]) -> None:
        sizes.append(len(inputs[0]))
        tried.set()
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    small.model.visual.register_forward_pre_hook(check)
    assert run(clips, tmp_path, Lane(backbone, lambda _: tried.wait(60)), Lane(small)).ok == 7
    assert sizes[0] > 1
    assert set(sizes[1:]) == {1}
    ours, right = FeatureStore(tmp_path), FeatureStore(undisturbed)
    for video_id in right:
        np.testing.assert_allclose(ours[video_id].frames, right[video_id].frames, atol=2e-2)


def test_no_more_than_two_batches_an_encoder_are_under_way(backbone: Backbone) -> None:
    go = threading.Event()
    lanes = [Lane(backbone, lambda _call: go.wait(60)) for _ in range(2)]
    crops = np.zeros((1, *backbone.preprocessing.size, 3), np.uint8)
    with EncoderGroup(lanes) as encoders:
        given = [encoders.submit(crops) for _ in range(4)]
        more = threading.Thread(target=lambda: given.append(encoders.submit(crops)))
        more.start()
        more.join(0.1)
        assert more.is_alive()
        go.set()
        more.join(60)
        assert [len(answer.result(60)) for answer in given] == [1] * 5


@pytest.mark.parametrize(
    ("name", "num_gpus", "devices"),
    [
        ("cpu", 2, ["cpu"]),
        ("auto", 0, ["cpu"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 3, ["cuda:1"]),
    ],
)
def test_cuda_is_every_gpu_and_a_number_is_one(
    name: str, num_gpus: int, devices: list[str]
) -> None:
    assert find_devices(name, num_gpus=num_gpus) == devices


@pytest.mark.parametrize(("name", "num_gpus"), [("cuda", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there_is_refused(name: str, num_gpus: int) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' asked for, but this machine has {num_gpus} G"):
        find_devices(name, num_gpus=num_gpus)


@pytest.mark.gpu
def test_two_lanes_of_a_gpu_give_what_one_gives(backbone: Backbone) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there = load_backbone(str(demo_model_folder()), device="cuda")
    side = backbone.preprocessing.size
    batches = np.random.default_rng(0).integers(0, 256, (8, 5, *side, 3), np.uint8)
    with EncoderGroup(there.lanes()) as encoders:
        answers = [encoders.submit(batch) for batch in batches]
        for batch, answer in zip(batches, answers, strict=True):
            np.testing.assert_array_equal(answer.result(), there.encode_frames(batch))


def test_reading_a_model_loads_no_compiler() -> None:
    # torch draws first weights without memory through its symbolic algebra: a second of CPU.
    code = (
        "import sys\nfrom vtr.clip.backbone import load_backbone\n"
        "from vtr.demo import demo_model_folder\n"
        "load_backbone(str(demo_model_folder()), device='cpu')\n"
        "print(sorted({'sympy', 'torch._dynamo', 'transformers.models'} & set(sys.modules)))\n"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]"


def test_whoever_only_plans_an_extraction_loads_neither_torch_nor_a_decoder() -> None:
    code = (
        "import sys\nimport vtr.api.extract, vtr.commands.extract\n"
        "print(sorted({'av', 'PIL', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]"

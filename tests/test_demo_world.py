import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from builders import contents

from tools.demo_clip.grammar import FRAME_TEMPLATES, ORDER_WORDS, vocabulary
from vtr.datasets.demo import load
from vtr.demo import DEMO_FRAMES
from vtr.demo.captions import CAPTIONS_PER_CLIP, clip_captions
from vtr.demo.drawing import HEIGHT, WIDTH
from vtr.demo.events import BriefEvent, known_uniform_share, read_events
from vtr.demo.render import PREDICTED_OPTIONS, clip_frames, encode, encode_clip
from vtr.demo.scenes import (
    CLIPS_PER_GROUP,
    CLIPS_PER_STAGE,
    ORDER_FACTOR,
    Clip,
    Group,
    plan_world,
    stream,
)
from vtr.demo.words import BACKGROUNDS, COLOURS, LOOKS, PARTS, SHAPES, looks_of, part_of
from vtr.demo.world import WORLD_SEED, WorldSummary, describe, render_world
from vtr.errors import ConfigError, DatasetError, StoreWriteError
from vtr.extract.samplers.base import SamplerChoice, Signals

WORLD = plan_world(WORLD_SEED)
TINY = {"train": 2, "val": 0, "test": 2}


def _clips(part: str, group: str) -> list[Clip]:
    return [clip for clip in WORLD if (clip.part, clip.group) == (part, group)]


def _decoded(clip: Clip) -> list[bytes]:
    with av.open(io.BytesIO(encode_clip(clip, seed=WORLD_SEED))) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def _drawn(clip: Clip, seed: int = WORLD_SEED) -> list[bytes]:
    return [frame.tobytes() for frame in clip_frames(clip, seed=seed)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    folder = tmp_path_factory.mktemp("world")
    return render_world(folder, seed=3, workers=1, clips_per_group=TINY)


# The plan


def test_full_world_has_the_stated_size() -> None:
    counts = Counter((clip.part, clip.group) for clip in WORLD)
    assert counts == {
        (p, g): CLIPS_PER_GROUP[p] * (ORDER_FACTOR.get(p, 1) if g == "order" else 1)
        for p, g in product(PARTS, get_args(Group))
    }
    assert len({clip.id for clip in WORLD}) == len(WORLD) == 680


def test_no_triple_of_one_split_occurs_in_another() -> None:
    shown: dict[tuple[str, str, str], set[str]] = {}
    for clip in WORLD:
        for look in clip.looks:
            shown.setdefault((look.shape, look.colour, clip.background), set()).add(clip.part)
    assert all(len(parts) == 1 for parts in shown.values())
    assert {part for parts in shown.values() for part in parts} == set(PARTS)


def test_rule_deals_every_triple_once_and_train_sees_all_pairs() -> None:
    dealt = Counter(part_of(look, kind) for look in LOOKS for kind in BACKGROUNDS)
    assert dealt == {"train": 240, "val": 48, "test": 96}
    train = {
        (look.shape, look.colour, kind) for kind in BACKGROUNDS for look in looks_of("train", kind)
    }
    assert {(shape, colour) for shape, colour, _ in train} == set(product(SHAPES, COLOURS))
    assert {(shape, kind) for shape, _, kind in train} == set(product(SHAPES, BACKGROUNDS))
    assert {(colour, kind) for _, colour, kind in train} == set(product(COLOURS, BACKGROUNDS))


def test_no_scene_is_described_twice_and_no_caption_fits_two_clips() -> None:
    assert len({clip.description for clip in WORLD}) == len(WORLD)
    owners: dict[str, set[str]] = {}
    for caption in describe(WORLD, seed=WORLD_SEED)["captions"]:
        owners.setdefault(caption["text"], set()).add(caption["video_id"])
    assert all(len(ids) == 1 for ids in owners.values())


@pytest.mark.parametrize("part", PARTS)
def test_content_clips_differ_in_what_one_frame_shows(part: str) -> None:
    clips = _clips(part, "content")
    assert len({(clip.looks, clip.background) for clip in clips}) == len(clips)


@pytest.mark.parametrize("part", PARTS)
def test_twins_are_each_other_reversed(part: str) -> None:
    clips = {clip.id: clip for clip in _clips(part, "order")}
    for clip in clips.values():
        assert clip.twin is not None
        twin = clips[clip.twin]
        assert (twin.twin, twin.looks) == (clip.id, clip.looks[::-1])
        assert replace(twin, id=clip.id, twin=clip.twin, looks=clip.looks) == clip
        assert clip.num_frames % 20 == 0, "two halves of whole seconds"
    pairs = Counter(frozenset(clip.looks) for clip in clips.values())
    assert set(pairs.values()) == {2}


@pytest.mark.parametrize("part", PARTS)
def test_brief_events_are_short_and_their_stages_shared(part: str) -> None:
    clips = _clips(part, "brief")
    stages = Counter(clip.stage for clip in clips)
    assert set(stages.values()) == {CLIPS_PER_STAGE}
    for clip in clips:
        assert 3 <= clip.event.num_frames <= 6, "tenths of a second"
        assert 100 <= clip.num_frames <= 120
        assert clip.event.first_frame > 0
        assert clip.event.frames[-1] < clip.num_frames - 1
    assert len({(clip.stage, clip.looks[0]) for clip in clips}) == len(clips)


def test_plan_refuses_what_it_cannot_make() -> None:
    with pytest.raises(ValueError, match=r"clips_per_group\['test'\] is 3; twins need an even"):
        plan_world(0, clips_per_group={"test": 3})
    with pytest.raises(ValueError, match="val has 48 different content clips, not 50"):
        plan_world(0, clips_per_group={"val": 50})


def test_streams_depend_on_every_name() -> None:
    names = [("a",), ("b",), ("a", "b"), ("ab",), ("b", "a")]
    first = [stream(0, *name).integers(2**62) for name in names] + [stream(1, "a").integers(2**62)]
    assert len(set(first)) == len(first)
    assert stream(0, "a", "b").integers(2**62) == first[2]


# Captions


def test_captions_are_five_different_ones_from_the_vocabulary() -> None:
    words = set(vocabulary())
    for clip in WORLD:
        captions = clip_captions(clip, seed=WORLD_SEED)
        assert len(set(captions)) == CAPTIONS_PER_CLIP
        for caption in captions:
            assert set(caption.replace(",", "").split()) <= words, caption


def test_twin_captions_are_the_same_sentences_with_the_sprites_exchanged() -> None:
    clips = {clip.id: clip for clip in _clips("test", "order")}
    for clip in clips.values():
        mine, others = (clip_captions(c, seed=WORLD_SEED) for c in (clip, clips[str(clip.twin)]))
        for one, other in zip(mine, others, strict=True):
            assert one != other
            assert Counter(one.replace(",", "").replace("an ", "a ").split()) == Counter(
                other.replace(",", "").replace("an ", "a ").split()
            )


def test_frame_captions_never_speak_of_order() -> None:
    said = {word for templates in FRAME_TEMPLATES.values() for t in templates for word in t.split()}
    assert not said & ORDER_WORDS
    assert set(vocabulary()) >= ORDER_WORDS


# Pictures


@pytest.mark.parametrize("group", get_args(Group))
def test_frames_are_the_same_every_time_and_follow_the_seed(group: str) -> None:
    clip = _clips("test", group)[0]
    first = _drawn(clip)
    assert len(first) == clip.num_frames
    assert {len(frame) for frame in first} == {HEIGHT * WIDTH * 3}
    assert _drawn(clip) == first
    assert _drawn(clip, seed=WORLD_SEED + 1) != first
    assert encode_clip(clip, seed=WORLD_SEED) == encode_clip(clip, seed=WORLD_SEED)


def test_predicted_frames_do_not_depend_on_the_processor() -> None:
    clip = _clips("test", "content")[0]
    plain = {**PREDICTED_OPTIONS, "x264-params": "asm=0"}
    frames = clip_frames(clip, seed=WORLD_SEED)
    assert encode_clip(clip, seed=WORLD_SEED) == encode(frames, plain)


def test_decoded_twins_are_the_same_frames_in_another_order() -> None:
    one, other = _clips("test", "order")[:2]
    assert one.twin == other.id
    first, second = _decoded(one), _decoded(other)
    half = one.num_frames // 2
    assert first != second
    assert Counter(first) == Counter(second)
    assert (first[:half], first[half:]) == (second[half:], second[:half])
    assert len(set(first)) == 2


@pytest.mark.parametrize("budget", range(2, 21, 2))
def test_uniform_takes_equally_many_frames_of_both_halves(budget: int) -> None:
    for clip in _clips("test", "order"):
        signals = Signals(np.arange(clip.num_frames) / 10)
        chosen = SamplerChoice("uniform").select(signals, budget, seed=0, video_id=clip.id)
        assert (chosen < clip.num_frames // 2).sum() * 2 == len(chosen)


def test_decoded_clips_of_a_stage_differ_in_their_events_alone() -> None:
    one, other = _clips("test", "brief")[:2]
    assert one.stage == other.stage
    differing = {
        index
        for index, pair in enumerate(zip(_decoded(one), _decoded(other), strict=True))
        if pair[0] != pair[1]
    }
    assert differing == set(one.event.frames) | set(other.event.frames)


def _luma_change(clip: Clip) -> np.ndarray:
    """Mean absolute change of 32 x 24 brightness thumbnails, in grey levels, (num_frames - 1,)."""
    frames = np.stack(list(clip_frames(clip, seed=WORLD_SEED))).astype(np.float32)
    luma = frames @ np.float32([0.299, 0.587, 0.114])
    small = luma.reshape(len(luma), 24, HEIGHT // 24, 32, WIDTH // 32).mean(axis=(2, 4))
    return np.abs(np.diff(small, axis=0)).mean(axis=(1, 2))


def _event_salience(clip: Clip) -> float:
    change = _luma_change(clip)
    edges = [clip.event.first_frame - 1, clip.event.frames[-1]]
    return float(change[edges].min() / np.delete(change, edges).max())


def test_events_are_the_strongest_changes_of_brightness() -> None:
    assert min(map(_event_salience, _clips("test", "brief")[::5])) > 3.0


@pytest.mark.slow
def test_every_event_is_the_strongest_change_of_brightness() -> None:
    assert min(_event_salience(clip) for clip in WORLD if clip.group == "brief") > 3.0


# Events and uniform sampling


def test_known_share_is_what_the_uniform_sampler_does() -> None:
    clips = _clips("test", "brief")
    events = [
        BriefEvent(c.id, c.part, c.event.start_seconds, c.event.end_seconds, c.num_frames, 10.0)
        for c in clips
        if c.event
    ]
    for budget in (1, 2, 3, DEMO_FRAMES, 12, 40, 500):
        missed = 0
        for clip in clips:
            signals = Signals(np.arange(clip.num_frames) / 10)
            chosen = SamplerChoice("uniform").select(signals, budget, seed=0, video_id=clip.id)
            missed += not set(chosen.tolist()) & set(clip.event.frames)
        assert known_uniform_share(events, num_frames=budget) == 1 - missed / len(clips)
    assert 0.1 <= known_uniform_share(events, num_frames=DEMO_FRAMES) <= 0.4
    assert known_uniform_share(events, num_frames=500) == 1.0


def test_an_event_is_caught_from_its_first_frame_to_its_last() -> None:
    event = BriefEvent("v", "test", 2.0, 2.4, 100, 10.0)
    assert [event.is_caught([t]) for t in (1.9, 2.0, 2.3, 2.4)] == [False, True, True, False]
    assert event.is_caught([0.1 + 0.2 + 1.7]), "rounding of time stamps"
    assert not event.is_caught([])


# The folder


def test_world_is_written_and_read_back(tiny: WorldSummary) -> None:
    dataset = load(tiny.annotations, tiny.videos)
    assert (tiny.num_videos, tiny.num_rendered, tiny.num_captions) == (16, 16, 80)
    assert dict(tiny.clips_by_split) == {"train": 10, "test": 6}
    assert dict(tiny.clips_by_group) == {"content": 4, "order": 8, "brief": 4}
    assert dataset == load(tiny.annotations.parent, tiny.videos) == load(None, tiny.videos)
    assert {path.stem for path in tiny.videos.iterdir()} == set(dataset.video_ids)
    assert {split: len(ids) for split, ids in dataset.splits.items()} == {"train": 10, "test": 6}
    assert Counter(dataset.groups.values()) == tiny.clips_by_group
    assert set(dataset.categories.values()) <= set(BACKGROUNDS)
    assert Counter(c.video_id for c in dataset.captions) == dict.fromkeys(dataset.video_ids, 5)
    assert tiny.num_bytes == sum(path.stat().st_size for path in tiny.videos.iterdir())


def test_clips_decode_to_the_recorded_number_of_frames(tiny: WorldSummary) -> None:
    for entry in json.loads(tiny.annotations.read_bytes())["videos"]:
        with av.open(tiny.videos / f"{entry['id']}.mp4") as container:
            times = [frame.time for frame in container.decode(video=0)]
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 128, 96)
        assert times == pytest.approx(np.arange(entry["num_frames"]) / 10)


def test_events_are_recorded(tiny: WorldSummary) -> None:
    clips = plan_world(3, clips_per_group=TINY)
    events = read_events(tiny.annotations)
    assert set(events) == {clip.id for clip in clips if clip.group == "brief"}
    for clip in clips:
        if clip.event:
            event = events[clip.id]
            assert (event.start_seconds, event.end_seconds) == (
                clip.event.start_seconds,
                clip.event.end_seconds,
            )
            shown = [i for i in range(event.num_frames) if event.is_caught([i / 10])]
            assert shown == list(clip.event.frames)


def test_other_processes_write_the_same_bytes(tiny: WorldSummary, tmp_path: Path) -> None:
    render_world(tmp_path / "new" / "world", seed=3, workers=2, clips_per_group=TINY)
    assert contents(tmp_path / "new" / "world") == contents(tiny.folder)


def test_whole_world_is_reused_and_damage_repaired(tmp_path: Path) -> None:
    size = {"test": 2}
    steps: list[tuple[int, int]] = []
    made = render_world(
        tmp_path, seed=1, workers=1, clips_per_group=size, progress=lambda *step: steps.append(step)
    )
    assert steps == [(done, 6) for done in range(1, 7)]
    whole = contents(tmp_path)
    assert render_world(tmp_path, seed=1, clips_per_group=size).num_rendered == 0
    paths = sorted(made.videos.iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].unlink()
    made.annotations.write_text("{}")
    assert render_world(tmp_path, seed=1, workers=1, clips_per_group=size).num_rendered == 2
    assert contents(tmp_path) == whole


def test_half_made_or_other_world_is_made_again(tmp_path: Path) -> None:
    size = {"test": 2}
    made = render_world(tmp_path, seed=1, workers=1, clips_per_group=size)
    whole = contents(tmp_path)
    (tmp_path / "world.json").write_text('{"recipe": ')
    some = next(made.videos.iterdir())
    some.write_bytes(b"half")
    (made.videos / "mine.txt").write_text("stays")
    assert render_world(tmp_path, seed=1, workers=1, clips_per_group=size).num_rendered == 6
    assert contents(tmp_path) == whole | {"videos/mine.txt": b"stays"}
    assert render_world(tmp_path, seed=2, workers=1, clips_per_group=size).num_rendered == 6


def test_a_stopped_run_is_gone_on_with(tmp_path: Path) -> None:
    size = {"test": 2}

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_world(tmp_path / "it", seed=1, workers=1, clips_per_group=size, progress=stop)
    kill = (
        "import os, sys; from pathlib import Path; import vtr.demo.world as world\n"
        "world._RECORD_SECONDS = 0\n"
        "world.render_world(Path(sys.argv[1]), seed=1, workers=1, clips_per_group={'test': 2},"
        " progress=lambda done, _: done < 3 or os.kill(os.getpid(), 9))"
    )
    killed = subprocess.run([sys.executable, "-c", kill, tmp_path / "it"], check=False)
    assert killed.returncode == -9
    again = render_world(tmp_path / "it", seed=1, workers=1, clips_per_group=size)
    assert again.num_rendered == 1
    render_world(tmp_path / "whole", seed=1, workers=1, clips_per_group=size)
    assert contents(tmp_path / "it") == contents(tmp_path / "whole")


def test_folder_and_workers_are_checked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = r"cannot make the folder .*file: File exists. Choose another with --path"
    with pytest.raises(StoreWriteError, match=refused):
        render_world(tmp_path / "file", workers=1)
    with pytest.raises(StoreWriteError, match=r"cannot write into .* /proc: .*another with --path"):
        render_world(Path("/proc"), workers=1)
    with pytest.raises(ConfigError, match="workers is 0; rendering needs at least 1"):
        render_world(tmp_path, workers=0)


# The reader


def _document() -> dict[str, list[dict[str, object]]]:
    video = {"id": "v", "split": "test", "group": "brief", "category": "plain"}
    return {"videos": [video], "captions": [{"id": "v#0", "video_id": "v", "text": "a"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("videos"), "no list 'videos'; expected videos and captions"),
        (lambda d: d["videos"][0].pop("group"), "entry 0 of 'videos' must be an object with id"),
        (lambda d: d["videos"][0].update(split="validate"), "split 'validate'; allowed: train,"),
        (lambda d: d["videos"][0].update(group="odd"), "group 'odd'; allowed: content, order"),
        (lambda d: d["videos"].append(d["videos"][0]), "video 'v' is listed 2 times"),
        (lambda d: d["captions"].append(d["captions"][0]), "caption 'v#0' is listed 2 times"),
        (lambda d: d["captions"][0].update(video_id="w"), "of video 'w', which is not listed"),
        (lambda d: d.update(captions={}), "no list 'captions'"),
    ],
)
def test_reader_refuses_annotations_that_do_not_agree(tmp_path, change, message) -> None:  # type: ignore[no-untyped-def]
    document = _document()
    change(document)
    path = tmp_path / "demo.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=message):
        load(path, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"videos": [', "is not whole JSON"),
        ("[]", "holds a list; needed: "),
        ("\x80", "is not whole JSON"),
    ],
)
def test_reader_refuses_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "demo.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=message):
        load(path, tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_events(path)


def test_reader_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no annotation file .*annotations.*`vtr demo` renders"):
        load(None, tmp_path / "videos")
    with pytest.raises(DatasetError, match=r"cannot read .*No such file"):
        read_events(tmp_path / "demo.json")

"""What choosing frames costs: all samplers in one pass, scores of every frame, a second pass.

Prints one JSON line per measurement. What is compared runs in turn, round by round, in this one
process and on one thread; a `ratio` is the median of the rounds' ratios of CPU time, which others
on the machine disturb less than the clock, `ratio_min` that of the rounds' minima. The clips are
those of `extract.py`, kept in --data.

    python benchmarks/samplers.py [--quick] [--only all,scores,passes]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
from common import Cost, Others, emit, goal, in_turn, median, ratios, timed
from encoders import clip_preprocessing
from numpy.typing import NDArray

from vtr.clip.preprocess import resize_crop
from vtr.extract.answers import SampledVideo
from vtr.extract.limits import Limits
from vtr.extract.sample import FrameRequest, sample_video
from vtr.extract.samplers.base import SamplerChoice, Signals, parse_samplers

FRAMES = 12
RECIPES = (clips.H264_240, clips.H264_720, clips.HEVC_720)


def sample(
    path: Path,
    samplers: str,
    transform: Callable[[NDArray[np.uint8]], NDArray[Any]],
    *,
    frames: int = FRAMES,
    limits: Limits | None = None,
) -> SampledVideo:
    """Chooses among all frames of a clip."""
    choices = parse_samplers(samplers)
    request = FrameRequest(path, path.stem, choices, frames, None, limits=limits or Limits())
    return sample_video(request, transform)


def corner(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keeps next to nothing of an RGB picture, which was made nonetheless."""
    return picture[:8, :8].copy()


def decode_bare(path: Path) -> int:
    """Decodes every frame and drops it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        return sum(1 for _ in container.decode(stream))


def resized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the crop that the vision tower of CLIP ViT-B/32 takes."""
    return resize_crop(picture, clip_preprocessing())


def bench_all(path: Path, rounds: int) -> None:
    """All samplers in one pass against motion alone; embedding not counted."""
    answers = _in_turn(
        rounds,
        motion=lambda: sample(path, "motion", corner),
        every=lambda: sample(path, "all", corner),
        motion_resized=lambda: sample(path, "motion", resized),
        every_resized=lambda: sample(path, "all", resized),
    )
    union = sample(path, "all", corner)
    emit(
        "all samplers",
        clip=path.name,
        samplers=len(union.selections),
        **_compared(answers["every"], answers["motion"], at_most=1.3),
        with_resizing=median(
            ratios(_cpu(answers["every_resized"]), _cpu(answers["motion_resized"]))
        ),
        candidates=union.num_candidates,
        chosen=sum(map(len, union.selections.values())),
        union=len(union.crops),
        each_once=len(np.unique(union.pts_seconds)) == len(union.crops),
        how=f"{FRAMES} of all frames each: decoding, thumbnails, choosing, RGB of the union's "
        "frames at their own size; with_resizing also makes CLIP's crops of them; no embedding",
    )
    bench_selection(path)


def bench_selection(path: Path) -> None:
    """What each sampler's own arithmetic takes of a clip, once the thumbnails are there."""
    signals = sample(path, "motion", corner).signals
    spent = {}
    for choice in parse_samplers("all"):
        fresh = Signals(signals.pts_seconds, signals.luma)
        spent[choice.label] = 1e3 * timed(partial(_select, choice, fresh)).cpu
    emit("selection", clip=path.name, candidates=len(signals), cpu_ms=spent)


def _select(choice: SamplerChoice, signals: Signals) -> None:
    choice.select(signals, FRAMES, seed=0, video_id="clip")


def bench_scores(path: Path, rounds: int) -> None:
    """Scores of every frame, natively, against decoding alone."""
    answers = _in_turn(
        rounds,
        bare=lambda: decode_bare(path),
        scores=lambda: sample(path, "scene", corner, frames=1),
    )
    emit(
        "scores",
        clip=path.name,
        **_compared(answers["scores"], answers["bare"], at_most=1.3),
        how="scene, 1 frame: all of reading and decoding, a thumbnail and a change for every "
        "frame; against a PyAV loop that drops every frame",
    )


def bench_passes(path: Path, rounds: int) -> None:
    """Keeping decoded frames until the samplers have chosen, against fetching them afterwards."""
    forget = Limits(max_frame_bytes=0)
    answers = _in_turn(
        rounds,
        one=lambda: sample(path, "motion", corner),
        two=lambda: sample(path, "motion", corner, limits=forget),
    )
    emit(
        "passes",
        clip=path.name,
        **_compared(answers["one"], answers["two"], at_most=1.0),
        how="one pass keeps decoded frames by reference, up to a number of bytes, until the "
        "samplers have chosen; two passes decode the chosen ones again",
    )


def _in_turn(rounds: int, **actions: Callable[[], Any]) -> dict[str, list[Cost]]:
    for action in actions.values():
        action()  # what the first call loads is nobody's cost
    return in_turn(rounds, **{name: partial(timed, action) for name, action in actions.items()})


def _cpu(costs: list[Cost]) -> list[float]:
    return [cost.cpu for cost in costs]


def _compared(above: list[Cost], below: list[Cost], *, at_most: float) -> dict[str, Any]:
    each = ratios(_cpu(above), _cpu(below))
    return {
        "ratio": goal(median(each), at_most=at_most),
        "ratios": each,
        "ratio_min": min(_cpu(above)) / min(_cpu(below)),
        "ratio_wall": median(ratios([cost.wall for cost in above], [cost.wall for cost in below])),
        "cpu_ms": median(_cpu(above)) * 1e3,
        "against_cpu_ms": median(_cpu(below)) * 1e3,
    }


GROUPS: dict[str, Callable[[Path, int], None]] = {
    "all": bench_all,
    "scores": bench_scores,
    "passes": bench_passes,
}


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, default=root / "bench-data", help="clips")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="of each kind")
    parser.add_argument("--quick", action="store_true", help="1 clip of each kind, 1 round")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
    return args


def main() -> None:
    args = parse()
    rounds, count = (1, 1) if args.quick else (args.rounds, args.clips)
    paths = [path for recipe in RECIPES for path in clips.make_clips(recipe, args.data, count)]
    for name in args.only.split(","):
        others = Others()
        for path in paths:
            GROUPS[name](path, rounds)
        emit("others", during=name, cpu_share=others.share())


if __name__ == "__main__":
    sys.exit(main())

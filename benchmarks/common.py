"""What all measurements share: clips, clocks, ratios, and the one way of printing."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clips

from vtr.datasets.base import Video
from vtr.extract.pipeline import ExtractReport, Progress, extract
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import Encoder, ExtractSettings

median = statistics.median


def emit(group: str, **values: Any) -> None:
    """Prints one JSON line; floats get four significant digits."""
    print(json.dumps({"group": group, **_rounded(values)}), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def goal(value: float, *, at_least: float | None = None, at_most: float | None = None) -> Any:
    """Returns a figure beside what it should be, and whether it is."""
    if at_least is not None:
        return {"value": value, "goal": f">= {at_least:g}", "met": value >= at_least}
    assert at_most is not None
    return {"value": value, "goal": f"<= {at_most:g}", "met": value <= at_most}


@dataclass(frozen=True)
class Cost:
    """What an action took.

    Args:
        wall: Seconds.
        cpu: Seconds of this process and all its threads.
    """

    wall: float
    cpu: float


def timed(action: Callable[[], object]) -> Cost:
    """Runs an action once."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(rounds: int, **actions: Callable[[], Any]) -> dict[str, list[Any]]:
    """Runs all actions `rounds` times, side by side, so that a drifting clock hits all alike.

    Every other round goes backwards.

    Returns:
        Each action's answers, in the order of the rounds.
    """
    answers: dict[str, list[Any]] = {name: [] for name in actions}
    for number in range(rounds):
        names = list(actions) if number % 2 == 0 else list(reversed(actions))
        for name in names:
            answers[name].append(actions[name]())
    return answers


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Returns the ratio of every round."""
    return [a / b for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Args:
        folder: Clips and model.
        rounds: How often everything is measured.
        workers: Decoding processes of ours.
        repeat: How often the feeder is given each clip, so that it runs for seconds.
        num_clips: How many of each kind.
    """

    folder: Path
    rounds: int
    workers: int
    repeat: int
    num_clips: dict[clips.Recipe, int]

    def paths(self, recipe: clips.Recipe) -> list[Path]:
        """Returns the clips of one kind."""
        return clips.make_clips(recipe, self.folder, self.num_clips[recipe])

    def tiny(self) -> Path:
        """Returns a clip that costs next to nothing."""
        return clips.make_clips(clips.TINY, self.folder, 1)[0]

    def settings(self, sampler: str) -> ExtractSettings:
        """Returns one candidate per second, as the reference takes, and one sampler."""
        return ExtractSettings(samplers=parse_samplers(sampler), workers=self.workers)


def listed(paths: list[Path], repeat: int = 1) -> list[Video]:
    """Returns each clip `repeat` times under ids of its own."""
    return [Video(f"{path.stem}#{i}", path) for i in range(repeat) for path in paths]


@dataclass(frozen=True)
class Run:
    """One extraction, timed from the moment its workers are ready.

    Args:
        report: The pipeline's own.
        start_seconds: From the call until the first worker's first answer.
        wall: Seconds from then until the store is closed.
        main_cpu: CPU seconds of this process meanwhile, all threads.
    """

    report: ExtractReport
    start_seconds: float
    wall: float
    main_cpu: float

    @property
    def cpu(self) -> float:
        """CPU seconds of this process and of the workers' jobs."""
        return self.main_cpu + self.report.decode_cpu_seconds


def run_pipeline(
    videos: Sequence[Video],
    encoder: Encoder,
    settings: ExtractSettings,
    *,
    first: Path,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Extracts into a store that is thrown away.

    The clock starts when `first`, a clip of almost no work put in front of the others, is
    answered. Other workers may become ready a moment later; that counts.

    Args:
        videos: What is timed.
        encoder: The encoder.
        settings: How.
        first: The clip in front.
        watch: Called after every video.
    """
    ready: list[tuple[float, float]] = []

    def see(progress: Progress) -> None:
        if not ready:
            ready.append((time.perf_counter(), time.process_time()))
        watch(progress)

    inputs = [(video, None) for video in (Video("warm-up", first), *videos)]
    # Beside the clips: /tmp may be no disk at all, and publishing a shard waits for the disk.
    with tempfile.TemporaryDirectory(prefix="store-", dir=first.parent) as folder:
        start = time.perf_counter()
        report = extract(inputs, Path(folder), encoder, settings, progress=see)
        wall, cpu = time.perf_counter(), time.process_time()
    assert report.ok == len(inputs), report
    return Run(report, ready[0][0] - start, wall - ready[0][0], cpu - ready[0][1])


def resident_bytes() -> int:
    """Returns how much memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Others:
    """Watches what other processes take of the cores, beginning now; None where nothing tells.

    What this process starts counts as its own once it has ended.
    """

    def __init__(self) -> None:
        self._before = _busy_seconds()

    def share(self) -> float | None:
        """Returns the share of all cores' time since the beginning, 0 to 1."""
        (wall, busy, own), (wall_now, busy_now, own_now) = self._before, _busy_seconds()
        if busy is None or busy_now is None:
            return None
        available = (wall_now - wall) * (os.cpu_count() or 1)
        return max(0.0, (busy_now - busy) - (own_now - own)) / available


def _busy_seconds() -> tuple[float, float | None, float]:
    """(now, CPU seconds of the whole machine or None, CPU seconds of this process and its own)."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    path = Path("/proc/stat")
    if not path.exists():
        return time.perf_counter(), None, own
    # user, nice, system, idle, iowait, irq, softirq, steal: proc_stat(5)
    ticks = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:9]]
    return time.perf_counter(), (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK"), own

"""How the cost of planning, of the ledger and of opening grows with the inputs.

A folder of empty files in 1,000 folders, and a store that holds all of them but every hundredth
(one frame each, D = 96, as many videos a shard as vtr writes): what counts here is the rows, not
the frames. Every figure is of a process of its own: wall seconds, CPU seconds, peak memory. `plan`
is `vtr extract --dry-run` without a store, `resume` with it, `parts` the plan of `--ray` (the sizes
of new files included), `open` the first opening (bytes are checked), `ledger` the second one and
every row. Prints one JSON line per size.

    python benchmarks/scale.py [--inputs 1000,10000,100000]
    python benchmarks/scale.py --inputs 1000000   # plan and resume: 60 s and 2 GB at most
    python benchmarks/scale.py --ray 1000         # two actors against --workers 2, on so many clips
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vtr.demo import demo_model_folder

FOLDERS = 1000
SHARD_VIDEOS = 256
HELD_OUT = 100


def build(home: Path, inputs: int) -> None:
    """Makes the folder and the store."""
    from vtr.api import extract
    from vtr.clip.backbone import load_backbone
    from vtr.extract.settings import feature_spec
    from vtr.features.rows import LedgerRow, VideoRow
    from vtr.features.shard import write_shard
    from vtr.verbs.extract import Options
    from vtr.workspace import Workspace

    names = [f"part{n % FOLDERS:03d}/video {n // FOLDERS:06d}.mp4" for n in range(inputs)]
    for number in range(min(FOLDERS, inputs)):
        (home / f"videos/part{number:03d}").mkdir(parents=True)
    for name in names:
        os.close(os.open(home / "videos" / name, os.O_CREAT))
    workspace = Workspace.at(home, videos=home / "videos", model=str(demo_model_folder()))
    (home / "store").mkdir()
    asked = Options.of()
    survey = type("Survey", (), {"videos": [None]})
    settings = extract.settings_of(workspace, survey, asked)  # type: ignore[arg-type]
    backbone = load_backbone(workspace.model, device="cpu")
    spec = feature_spec(backbone, settings)
    frame, pad = np.ones((1, spec.embedding_dim), np.float16), backbone.pad_embedding()
    held = [name for n, name in enumerate(sorted(names)) if n % HELD_OUT]
    chosen = {label: np.zeros(1, np.int64) for label in spec.samplers}
    for sequence, start in enumerate(range(0, len(held), SHARD_VIDEOS)):
        rows = [
            VideoRow(LedgerRow(name, "ok", "", file_bytes=0), frame, np.zeros(1), chosen)
            for name in held[start : start + SHARD_VIDEOS]
        ]
        write_shard(
            home / "store", rows, spec=spec, slot=(1, 1, sequence), revision=0, pad_embedding=pad
        )


def dry_run(home: Path, store: str) -> None:
    from typer.testing import CliRunner

    from vtr.cli import app

    words = ["extract", "--dry-run", "--json", "--videos", "videos", "--dataset", "folder"]
    words += ["--features", store, "--model", str(demo_model_folder())]
    with contextlib.chdir(home):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def parts(home: Path) -> None:
    from vtr.api import extract, extract_on_ray
    from vtr.verbs.extract import Options
    from vtr.workspace import Workspace

    workspace = Workspace.at(home, videos=home / "videos", dataset="folder")
    inputs = extract.present(extract.find_inputs(workspace))
    made = extract_on_ray.plan_parts(inputs, home / "store", Options.of(ray="auto"), workers=16)
    assert sum(len(part.inputs) for part in made) == -(-len(inputs) // HELD_OUT)


def ledger(home: Path) -> None:
    from vtr.features.store import FeatureStore

    assert len(FeatureStore(home / "store").ledger) > 0


def opening(home: Path) -> None:
    from vtr.features.store import FeatureStore

    assert len(FeatureStore(home / "store")) > 0


STEPS: dict[str, Callable[[Path], None]] = {
    "plan": lambda home: dry_run(home, "none"),
    "open": opening,
    "ledger": ledger,
    "resume": lambda home: dry_run(home, "store"),
    "parts": parts,
}


def measure(step: str, home: Path) -> dict[str, float]:
    """Runs a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, "--home", home],
        env={**os.environ, "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def run_step(step: str, home: Path) -> None:
    from vtr.api import extract  # noqa: F401  (imported before the clock runs, torch apart)

    start, cpu = time.perf_counter(), time.process_time()
    STEPS[step](home)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(json.dumps({
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_gb": round(peak, 2),
    }))  # fmt: skip


class Meter:
    """CPU seconds of a process and of all below it, looked at while they run."""

    def __init__(self, pid: int) -> None:
        self._pid, self._done = pid, threading.Event()
        self._used: dict[int, float] = {}
        self.history: list[tuple[float, float]] = []  # (time, CPU seconds so far)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Ends the looking."""
        self._done.set()
        self._thread.join()

    def until(self, when: float) -> float:
        """Returns the CPU seconds used until then."""
        return max((cpu for time_, cpu in self.history if time_ <= when), default=0.0)

    def _watch(self) -> None:
        tick = os.sysconf("SC_CLK_TCK")
        while not self._done.wait(0.2):
            parents, found = {}, {self._pid}
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    used = (int(fields[11]) + int(fields[12])) / tick
                    parents[int(entry.name)] = int(fields[1]), used
            while more := {pid for pid, (up, _) in parents.items() if up in found} - found:
                found |= more
            for pid in found & set(parents):
                self._used[pid] = max(self._used.get(pid, 0.0), parents[pid][1])
            self.history.append((time.time(), sum(self._used.values())))


def on_ray(clips: int, rounds: int) -> Iterator[dict[str, object]]:
    """Two actors of one core against one process with two decoders, the start of both apart.

    In turn, as often as asked. Per way: seconds and CPU seconds of the whole run, with the start of
    what works (of Ray and its workers); videos a second, and CPU milliseconds a video, from when
    every worker has published a shard until the last shard.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_clips(home, clips)
        for number in range(rounds):
            line: dict[str, object] = {"benchmark": "scale", "clips": clips, "round": number}
            for name, more in {
                "plain": ("--workers", "2"),
                "ray": ("--ray", "--cpus-per-worker", "1", "--parts", "8"),
            }.items():
                store = home / f"{name}{number}"
                words = ["extract", "--videos", home / "videos", "--dataset", "folder", "--json"]
                words += ["--model", demo_model_folder(), "--features", store, *more]
                words += ["--shard-videos", "16"]
                run = subprocess.Popen([sys.executable, "-m", "vtr", *words], stdout=-1, stderr=-1)
                meter = Meter(run.pid)
                out, err = run.communicate()
                meter.stop()
                assert run.returncode == 0, err[-2000:]
                begun, end, count = steady(store)
                cpu = meter.until(end + 0.2) - meter.until(begun)
                line[name] = {
                    "seconds": round(json.loads(out)["seconds"], 1),
                    "cpu_seconds": round(meter.history[-1][1], 1),
                    "videos_per_second": round(count / (end - begun), 1),
                    "cpu_ms_per_video": round(1000 * cpu / count, 1),
                    "load": round(os.getloadavg()[0], 1),
                }
            yield line


def write_clips(home: Path, clips: int) -> None:
    """Writes one clip of 48 frames, under many names."""
    (home / "videos").mkdir()
    rng = np.random.default_rng(0)
    with av.open(str(home / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(4))
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(48):
            squares = rng.integers(0, 256, (15, 20, 3), np.uint8)
            picture = np.kron(squares, np.ones((8, 8, 1), np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    for number in range(clips):
        os.link(home / "clip.mp4", home / f"videos/clip {number:06d}.mp4")


def steady(store: Path) -> tuple[float, float, int]:
    """Returns when every worker had published a shard, when the last was, the videos between."""
    from vtr.features.store import FeatureStore

    shards = sorted(
        (s.path.stat().st_mtime, s.name.slot[:2], len(s.ids)) for s in FeatureStore(store).shards
    )
    begun = next(when for when, part, _ in shards if part[0] == 1 or part != shards[0][1])
    return begun, shards[-1][0], sum(count for when, _, count in shards if when > begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", default="1000,10000,100000")
    parser.add_argument("--ray", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    if asked.step:
        run_step(asked.step, asked.home)
        return
    if asked.ray:
        for line in on_ray(asked.ray, asked.rounds):
            print(json.dumps(line), flush=True)
        return
    for size in map(int, asked.inputs.split(",")):
        with tempfile.TemporaryDirectory() as home:
            start = time.perf_counter()
            build(Path(home), size)
            built = time.perf_counter() - start
            line: dict[str, object] = {"benchmark": "scale", "inputs": size}
            for step in STEPS:
                line[step] = measure(step, Path(home))
            shards = list((Path(home) / "store").glob("shard-*"))
            line |= {"shards": len(shards), "built_seconds": round(built, 1)}
            line["store_mb"] = round(sum(path.stat().st_size for path in shards) / 1e6, 1)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""What passes from a command typed to its work: of `vtr extract`, of `vtr eval --zero-shot`.

Whole processes, in turn with ones that do only what no program with torch can leave out. Prints
one JSON line a model: the wall time to the first batch in the encoder over "import torch and read
the weights"; with a folder that `vtr demo` made, instead that of eval over "import torch" + its
work.

    python benchmarks/start.py [--rounds 7] [--demo demo-world]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clips
from common import emit, goal, in_turn, median, ratios
from encoders import random_clip

from vtr.demo import demo_model_folder

BARE = """
import time, torch
from safetensors import safe_open
with safe_open({weights!r}, framework="pt") as file:
    held = {{name: file.get_tensor(name).clone() for name in file.keys()}}
print(time.time())
"""
FIRST_BATCH = """
import os, sys, time
from vtr.extract.encoders import EncoderGroup
def first(*_, **__):
    print(time.time(), flush=True)
    os._exit(0)
EncoderGroup.submit = first
from vtr.__main__ import main
sys.argv[1:] = ["extract"]
main()
"""
EVAL = """
import sys, time
from vtr.__main__ import main
sys.argv[1:] = ["eval", "--zero-shot"]
for _ in range({times}):
    begun = time.time()
    try:
        main()
    except SystemExit:
        pass
print(time.time() - begun if {times} > 1 else time.time())
"""


def seconds(code: str, home: Path) -> float:
    """From the start of a process to the time that it prints last."""
    begun = time.time()
    cache = {**os.environ, "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
        env=cache,
    )
    return float(done.stdout.split()[-1]) - begun


def first_batch(model: Path, videos: Path, rounds: int) -> None:
    """Prints what `vtr extract` takes to the first batch, over the bare minimum."""
    weights = str(next(model.glob("*.safetensors")))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        words = ["init", "--videos", videos, "--model", model]
        subprocess.run(
            [sys.executable, "-m", "vtr", *words], cwd=home, check=True, capture_output=True
        )

        def extract(first: str = "features") -> float:
            for name in ("features", first):
                shutil.rmtree(home / name, ignore_errors=True)
            return seconds(FIRST_BATCH, home)

        bare = BARE.format(weights=weights)
        took = in_turn(
            rounds,
            bare=lambda: seconds(bare, home),
            first=lambda: extract("cache"),  # the model's digest is not remembered yet
            later=extract,
        )
    over = {
        name: goal(median(ratios(took[name], took["bare"])), at_most=1.3)
        for name in ("first", "later")
    }
    medians = {name: median(values) for name, values in took.items()}
    emit("first_batch", model=model.name, seconds=medians, over_bare=over)


def zero_shot(home: Path, rounds: int) -> None:
    """Prints what `vtr eval --zero-shot` takes over importing torch and its own work."""

    def work() -> float:
        code = EVAL.format(times=2)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    took = in_turn(
        rounds,
        torch=lambda: seconds("import time, torch; print(time.time())", home),
        work=work,
        ours=lambda: seconds(EVAL.format(times=1), home),
    )
    bare = [a + b for a, b in zip(took["torch"], took["work"], strict=True)]
    medians = {name: median(values) for name, values in took.items()}
    over = goal(median(ratios(took["ours"], bare)), at_most=1.5)
    emit("zero_shot", seconds=medians, over_torch_and_work=over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, default=root / "bench-data", help="clips and model")
    parser.add_argument("--model", type=Path, help="a folder to measure instead of two of ours")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--demo", type=Path, help="a folder that `vtr demo` made: measure eval")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles vtr anew
    if args.demo is not None:
        zero_shot(args.demo.absolute(), args.rounds)
        return
    paths = clips.make_clips(clips.H264_240, args.data, 4)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            shutil.copy(path, folder)
        ours = (demo_model_folder(), random_clip(args.data))
        for model in (args.model.absolute(),) if args.model else ours:
            first_batch(model, Path(folder), args.rounds)


if __name__ == "__main__":
    main()

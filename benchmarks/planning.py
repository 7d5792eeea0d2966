"""What is done before the first video is opened: init, data verify, extract's plan.

Folders of empty files with captions that name them by paths of another machine, every tenth one
lost. CPU seconds of the commands themselves, in one process; growth is the time per caption at the
largest size over that at the middle one: 1 where planning is linear. Prints one JSON line.

    python benchmarks/planning.py [--captions 1000,10000,100000]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path

from typer.testing import CliRunner

from vtr.cli import app
from vtr.demo import demo_model_folder

CAPTIONS_PER_FILE = 5
FOLDERS = 100
COMMANDS = {
    "init": ("init", "--videos", "videos", "--annotations", "captions.csv", "--force"),
    "verify": ("data", "verify", "--fast", "--json"),
    "extract_plan": ("extract", "--dry-run", "--json"),
}


def build(home: Path, captions: int) -> None:
    """Makes the folder and its captions; names repeat, so that folders decide."""
    rows = ["video,caption,split"]
    for number in range(captions // CAPTIONS_PER_FILE):
        name = f"part{number % FOLDERS}/clip{number // FOLDERS}.mp4"
        path = home / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 10:
            path.touch()
        split = "test" if number % 4 == 0 else "train"
        for said in range(CAPTIONS_PER_FILE):
            rows.append(f"/srv/somebody/videos/{name},caption {said} of {number},{split}")
    (home / "captions.csv").write_text("\n".join(rows) + "\n")


def measure(captions: int) -> dict[str, float]:
    """CPU seconds of every command on a folder of this size."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        build(Path(home), captions)
        for name, words in COMMANDS.items():
            model = ("--model", str(demo_model_folder())) if name == "init" else ()
            start = time.process_time()
            done = CliRunner().invoke(app, [*words, *model], catch_exceptions=False)
            seconds[name] = time.process_time() - start
            assert done.exit_code in (0, 3), done.output
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", default="1000,10000,100000")
    sizes = [int(size) for size in parser.parse_args().captions.split(",")]
    measure(10 * CAPTIONS_PER_FILE)  # imports
    found = [measure(size) for size in sizes]
    line: dict[str, object] = {"benchmark": "planning", "captions": sizes}
    line["files"] = [size // CAPTIONS_PER_FILE for size in sizes]
    for name in COMMANDS:
        line[f"{name}_seconds"] = [round(seconds[name], 3) for seconds in found]
        if len(sizes) > 1:
            first, last = (found[i][name] / sizes[i] for i in (-2, -1))
            line[f"{name}_growth"] = round(last / first, 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()

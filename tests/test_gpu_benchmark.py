"""`benchmarks/gpu.py` runs without a GPU, so that it runs when one is at hand."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_it_ends_with_a_table_of_everything(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--data", str(tmp_path)]
    done = subprocess.run(
        [*command, "--heads", "meanP,seqTransf"], capture_output=True, text=True, check=True
    )
    table = done.stdout[done.stdout.index("| what | with | figure | goal |") :].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert {row[0] for row in cells} == {
        "encode, frames/s", "encode over the bare model", "decode, frames/s", "whole, frames/s",
        "whole over its slower half", "epoch of 180,000 pairs, s", "search, ms a query",
    }  # fmt: skip
    assert [row[1] for row in cells if row[0].startswith("epoch")] == [
        "meanP, steps of 2", "seqTransf, steps of 2",
    ]  # fmt: skip
    assert all(float(row[2].replace(",", "")) > 0 for row in cells)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "nothing is left but clips"


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--device",
        "cuda:77",
        "--tiny",
        "--data",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "'cuda:77' asked for, but this machine has" in done.stderr

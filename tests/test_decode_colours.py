"""The matrix and the range that a stream names decide its colours, with the oldest PyAV too."""

import json
import re
import subprocess
import sys
import tomllib
import venv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from builders import sampled

ROOT = Path(__file__).parents[1]
COLOURS = np.array(
    [[220, 30, 30], [30, 200, 40], [40, 60, 220], [200, 200, 200], [240, 200, 60], [120, 30, 160]]
)
# ITU-R BT.709, BT.601, BT.2020: weights of red and blue in the luma, and H.273's number.
MATRICES = {"709": (0.2126, 0.0722, 1), "601": (0.299, 0.114, 6), "2020": (0.2627, 0.0593, 9)}
KINDS = [(matrix, full) for matrix in MATRICES for full in (False, True)]
SIDE = 16


def yuv(matrix, full, bits):
    """(6, 3) the colours by the standards' formulas."""
    red, blue, _ = MATRICES[matrix]
    r, g, b = COLOURS.T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / 2 / (1 - blue), (r - y) / 2 / (1 - red)
    unit = 2 ** (bits - 8)
    if full:
        top = 2**bits - 1
        return np.round([y * top, u * top + 128 * unit, v * top + 128 * unit]).T
    return np.round([(16 + 219 * y) * unit, (128 + 224 * u) * unit, (128 + 224 * v) * unit]).T


def write_patches(path, matrix, *, full, bits=8):
    """Six patches side by side, losslessly, tagged; three frames."""
    number = MATRICES[matrix][2]
    levels = yuv(matrix, full, bits).astype(np.uint8 if bits == 8 else np.uint16)
    pix_fmt = "yuv444p" if bits == 8 else "yuv444p10le"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 6 * SIDE, SIDE, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range = number, 2 if full else 1
        for index in range(3):
            frame = av.VideoFrame(6 * SIDE, SIDE, pix_fmt)
            for channel, plane in enumerate(frame.planes):
                rows = np.zeros((SIDE, plane.line_size // levels.itemsize), levels.dtype)
                rows[:, : 6 * SIDE] = np.repeat(levels[:, channel], SIDE)
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = index, Fraction(1, 10)
            frame.colorspace, frame.color_range = number, 2 if full else 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def patches(picture):
    return picture[SIDE // 2, SIDE // 2 :: SIDE]


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(("matrix", "full"), KINDS)
def test_colours_are_those_that_were_meant(tmp_path, matrix, full, bits):
    path = write_patches(tmp_path / "x.mkv", matrix, full=full, bits=bits)
    picture = sampled(path, "head", 1).crops[0]
    assert np.abs(patches(picture).astype(int) - COLOURS).max() <= 3


DECODE = f"""
import json, sys, av
from vtr.extract.frames import to_rgb, Upright
def first(path):
    with av.open(path) as container:
        return to_rgb(next(container.decode(video=0)), Upright())
pictures = [first(path)[{SIDE // 2}, {SIDE // 2}::{SIDE}].tolist() for path in sys.argv[1:]]
print(json.dumps([av.__version__, pictures]))
"""


def lowest_pyav():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(found[1] for text in wanted if (found := re.match(r"av>=([\d.]+)", text)))


@pytest.mark.slow
def test_colours_with_the_lowest_pyav_allowed(tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = f"av=={lowest_pyav()}.0.0"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    installed = subprocess.run([*pip, wanted, "numpy"], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"pip cannot install {wanted}: {installed.stderr[-300:]}")
    files = [
        str(write_patches(tmp_path / f"{matrix}-{full}-{bits}.mkv", matrix, full=full, bits=bits))
        for matrix, full in KINDS
        for bits in (8, 10)
    ]
    told = subprocess.run(
        [str(python), "-c", DECODE, *files],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    version, pictures = json.loads(told)
    assert version.split(".")[0] == lowest_pyav()
    assert np.abs(np.array(pictures) - COLOURS).max() <= 3

"""The reference's own picks: sijiasiga/CLIP_video@91bcaf6 on small stacks of pictures.

`golden/samplers.npz` holds the red channel of each stack, `stack/NAME` (L, h, w) float32, and the
indices that the reference returned, `NAME/mfK/posP[/seedS]`: K frames asked for, frame position P,
after `np.random.seed(S)`. Here our selections run on the reference's signals: red channel, float32
pictures, its legacy generator.
"""

from pathlib import Path

import numpy as np
import pytest
from builders import changing

from vtr.extract.samplers import hybrid, motion
from vtr.extract.samplers.base import Indices, SamplerChoice
from vtr.extract.samplers.common import spread

with np.load(Path(__file__).parent / "golden" / "samplers.npz", allow_pickle=False) as arrays:
    GOLDEN = {name: arrays[name] for name in arrays.files}
CASES = [name for name in GOLDEN if not name.startswith("stack/")]
NAMES = {
    "pos0": "head",
    "pos1": "tail",
    "pos2": "uniform",
    "pos3": "sparse-dense",
    "pos4": "motion",
    "pos5": "scene",
    "pos6": "diversity",
    "pos7": "activity",
    "pos8": "enhanced-uniform",
    "pos9": "hybrid",
}

# The reference returned K different frames, but not those of its own rule.
INDEX_BUG = {
    "plateau60/mf8/pos5": "eleven cuts: frame 0 is ranked by the change into frame 59 and dropped"
}
# It returned fewer than K, one of which follows no rule that we keep.
ODD_FRAME = {
    "onejump40/mf12/pos7": "frame 1 is added 'after the largest change', which is zero",
    "onejump40/mf16/pos7": "frame 1 is added 'after the largest change', which is zero",
}


def parts(case: str) -> tuple[str, int, str, int | None]:
    """(stack, K, sampler, seed) of a case."""
    stack, budget, position, *seed = case.split("/")
    return stack, int(budget[2:]), NAMES[position], int(seed[0][4:]) if seed else None


def ours(case: str) -> Indices:
    """Our selection from the reference's signals."""
    stack, budget, name, seed = parts(case)
    red = GOLDEN[f"stack/{stack}"]
    count = len(red)
    steps = np.diff(red, axis=0)
    absolute = np.concatenate([[0], np.abs(steps).mean(axis=(1, 2))])
    squared = np.concatenate([[0], np.square(steps).mean(axis=(1, 2))])
    signals = changing(absolute, squared * motion.LEVELS_PER_UNIT**2)
    legacy = np.random.RandomState(seed)
    if name == "motion" and budget < count:
        return motion.select(signals, budget, legacy, floor_total=1e9)
    if name == "hybrid" and budget < count:
        return hybrid.select(signals, budget, legacy)
    if name == "diversity":
        order, _ = spread(
            lambda index: np.square(red - red[index]).mean(axis=(1, 2)), 0, min(budget, count)
        )
        return np.sort(order)
    return SamplerChoice(name).select(signals, budget, seed=0, video_id="")


def reference(case: str) -> tuple[Indices, bool]:
    """The reference's picks, sorted and unique; whether it returned as many as asked for."""
    stack, budget, _, _ = parts(case)
    picks = np.unique(GOLDEN[case])
    return picks, len(picks) == min(budget, len(GOLDEN[f"stack/{stack}"]))


KEPT = [case for case in CASES if reference(case)[1] and case not in INDEX_BUG]
SHORT = [case for case in CASES if not reference(case)[1] and case not in ODD_FRAME]


@pytest.mark.parametrize("case", KEPT)
def test_same_picks_where_the_reference_kept_the_contract(case: str) -> None:
    """Sorted: position 3 returns its two halves one after the other."""
    np.testing.assert_array_equal(ours(case), reference(case)[0])


@pytest.mark.parametrize("case", SHORT)
def test_all_its_picks_where_it_returned_too_few(case: str) -> None:
    """Ours are its picks and what was missing, nothing else."""
    stack, budget, _, _ = parts(case)
    picks = ours(case)
    assert set(reference(case)[0].tolist()) < set(picks.tolist())
    assert len(np.unique(picks)) == len(picks) == min(budget, len(GOLDEN[f"stack/{stack}"]))


def test_how_many_cases_are_compared() -> None:
    """So that the comparison cannot shrink unseen. (K different frames, fewer than K.)"""
    found = {
        name: (
            sum(parts(case)[2] == name for case in KEPT),
            sum(parts(case)[2] == name for case in SHORT),
        )
        for name in NAMES.values()
    }
    assert found == {
        "head": (21, 0),
        "tail": (21, 0),
        "uniform": (21, 0),
        "sparse-dense": (13, 8),
        "motion": (33, 9),
        "scene": (17, 3),
        "diversity": (21, 0),
        "activity": (3, 16),
        "enhanced-uniform": (1, 20),
        "hybrid": (10, 32),
    }
    left_out = set(CASES) - set(KEPT) - set(SHORT)
    assert left_out == set(INDEX_BUG) | set(ODD_FRAME)
    assert len(CASES) == 252


def test_scene_keeps_frame_0_where_the_reference_s_index_bug_dropped_it() -> None:
    case = "plateau60/mf8/pos5"
    assert reference(case)[0].tolist() == [5, 10, 15, 20, 25, 35, 40, 45]
    assert ours(case).tolist() == [0, 5, 10, 15, 25, 35, 40, 45]


@pytest.mark.parametrize("case", ODD_FRAME)
def test_activity_adds_no_frame_after_a_change_of_zero(case: str) -> None:
    picks, theirs = set(ours(case).tolist()), set(reference(case)[0].tolist())
    assert theirs - picks == {1}


def test_enhanced_uniform_gives_the_ends_what_the_reference_lost() -> None:
    """It asks for the first and last frames, which its even frames already hold."""
    assert reference("noise40/mf8/pos8")[0].tolist() == [0, 7, 15, 23, 31, 39]
    assert ours("noise40/mf8/pos8").tolist() == [0, 1, 7, 15, 23, 31, 38, 39]

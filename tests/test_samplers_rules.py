"""What each sampler is for: its formula against a slow plain one, its options, what it finds."""

import math
from fractions import Fraction

import numpy as np
import pytest
from builders import changing
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray
from scipy.signal import find_peaks as scipy_find_peaks

from vtr.errors import ConfigError
from vtr.extract.samplers import activity, common, embedding_diversity, hybrid, motion, scene, shot
from vtr.extract.samplers.base import (
    Indices,
    SamplerChoice,
    Signals,
    check_selection,
    parse_samplers,
    sampler_names,
    sampler_options,
)


def choose(name: str, luma: NDArray[np.uint8], num_frames: int = 8, seed: int = 0) -> list[int]:
    """The picks of a sampler, named with its options."""
    (choice,) = parse_samplers(name)
    signals = Signals(np.arange(float(len(luma))), luma)
    return choice.select(signals, num_frames, seed=seed, video_id="v").tolist()


def changing_picks(name: str, change: ArrayLike, num_frames: int) -> list[int]:
    """The picks of a sampler that is told how much changes before each frame."""
    (choice,) = parse_samplers(name)
    signals = changing(np.array(change, float), np.array(change, float))
    return choice.select(signals, num_frames, seed=0, video_id="v").tolist()


def embedded_picks(rows: NDArray[np.floating], num_frames: int) -> list[int]:
    signals = Signals(np.arange(float(len(rows))), embeddings=rows)
    return embedding_diversity.select(signals, num_frames, np.random.default_rng(0)).tolist()


def still(count: int, level: int = 90) -> NDArray[np.uint8]:
    return np.full((count, 32, 32), level, np.uint8)


# --- Signals -------------------------------------------------------------------------------------


@given(
    luma=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))),
    chunk=st.integers(1, 9),
)
def test_changes_are_the_plain_ones(luma: NDArray[np.uint8], chunk: int) -> None:
    before, common.CHUNK_FRAMES = common.CHUNK_FRAMES, chunk
    try:
        absolute, squared = common.absolute_change(luma), common.squared_change(luma)
        distances = common.squared_distances(luma, luma[-1].astype(np.int16))
    finally:
        common.CHUNK_FRAMES = before
    steps = np.diff(luma.astype(float), axis=0, prepend=luma[:1].astype(float))
    np.testing.assert_allclose(absolute, np.abs(steps).mean(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(squared, (steps**2).mean(axis=(1, 2)), rtol=1e-12)
    expected = [((frame - luma[-1].astype(float)) ** 2).sum() for frame in luma]
    assert distances.tolist() == expected


def test_the_largest_change_does_not_overflow() -> None:
    luma = np.stack([np.zeros((200, 200), np.uint8), np.full((200, 200), 255, np.uint8)])
    assert common.squared_change(luma).tolist() == [0, 65025]
    assert common.absolute_change(luma).tolist() == [0, 255]


# --- Shared rules --------------------------------------------------------------------------------


@given(data=st.data(), count=st.integers(1, 60))
def test_fill_gaps_halves_the_longest_run(data: st.DataObject, count: int) -> None:
    chosen = data.draw(st.sets(st.integers(0, count - 1)))
    budget = data.draw(st.integers(len(chosen), count))
    filled = set(chosen)
    while len(filled) < budget:
        free = [i for i in range(count) if i not in filled]
        runs: list[list[int]] = []
        for i in free:
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        longest = max(runs, key=len)  # the first of equals
        filled.add(longest[(len(longest) - 1) // 2])
    got = common.fill_gaps(np.array(sorted(chosen), np.int64), count, budget)
    assert got.tolist() == sorted(filled)


@given(
    values=st.one_of(
        st.lists(st.integers(0, 4), min_size=1, max_size=60),
        st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True),
    ),
    distance=st.integers(1, 12),
)
def test_peaks_are_scipy_s_where_heights_differ(values: list[int], distance: int) -> None:
    """Local maxima always; the choice among close ones where no two are equally high."""
    array = np.array(values, float)
    every, _ = scipy_find_peaks(array)
    assert activity.find_peaks(array, 1).tolist() == every.tolist()
    kept = activity.find_peaks(array, distance)
    assert (np.diff(kept) >= distance).all()
    assert set(kept.tolist()) <= set(every.tolist())
    if len(set(array[every].tolist())) == len(every):
        expected, _ = scipy_find_peaks(array, distance=distance)
        assert kept.tolist() == expected.tolist()


@given(
    points=hnp.arrays(
        np.int64, st.tuples(st.integers(1, 25), st.just(2)), elements=st.integers(0, 5)
    ),
    data=st.data(),
)
def test_spread_is_the_plain_farthest_point(points: NDArray[np.int64], data: st.DataObject) -> None:
    count = len(points)
    num_frames = data.draw(st.integers(1, count))
    start = data.draw(st.integers(0, count - 1))

    def distance(i: int, j: int) -> int:
        return int(((points[i] - points[j]) ** 2).sum())

    order, gains = [start], [math.inf]
    while len(order) < num_frames:
        rest = [i for i in range(count) if i not in order]
        near = [min(distance(i, j) for j in order) for i in rest]
        gains.append(max(near))
        order.append(rest[near.index(max(near))])
    got, got_gains = common.spread(
        lambda i: ((points - points[i]) ** 2).sum(axis=1).astype(float), start, num_frames
    )
    assert got.tolist() == order
    assert got_gains.tolist() == gains


def test_draw_follows_the_weights() -> None:
    rng = np.random.default_rng(0)
    candidates = np.array([10, 20, 30, 40])
    weights = np.array([0.0, 1.0, 3.0, 0.0])
    first = [int(common.draw(rng, candidates, 1, weights)[0]) for _ in range(4000)]
    share = first.count(30) / 4000
    assert set(first) == {20, 30}
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


def test_draw_takes_every_weighted_one_and_fills_up_from_the_others() -> None:
    rng = np.random.default_rng(0)
    candidates = np.array([10, 20, 30, 40])
    # 5e-324 vanishes beside 65025, and NumPy refuses to draw two frames from one.
    for weights in ([0, 1, 0, 0], [0, 65025, 5e-324, 0]):
        drawn = [common.draw(rng, candidates, 2, np.array(weights, float)) for _ in range(50)]
        assert all(20 in pair and len(set(pair.tolist())) == 2 for pair in drawn)
        assert {int(i) for pair in drawn for i in pair} == {10, 20, 30, 40}


@given(total=st.integers(0, 2000), tenths=st.integers(0, 10))
def test_portion_is_whole_number_arithmetic(total: int, tenths: int) -> None:
    assert common.portion(total, tenths / 10) == total * tenths // 10
    assert common.portion(90, 0.7) == 63  # 90 * 0.7 is 62.99999999999999


# --- The cores on arbitrary signals --------------------------------------------------------------

CHANGES = hnp.arrays(
    np.float64,
    st.integers(1, 80),
    elements=st.one_of(
        st.sampled_from([0.0, 5e-324, 1e-5, 1.0, 255.0, 65025.0]), st.floats(0, 65025)
    ),
)


@given(change=CHANGES, num_frames=st.integers(1, 64), seed=st.integers(0, 2**32 - 1))
def test_cores_keep_the_contract_on_any_signal(
    change: NDArray[np.float64], num_frames: int, seed: int
) -> None:
    assume(num_frames < len(change))
    signals = changing(change, change * motion.LEVELS_PER_UNIT**2)
    rng, legacy = np.random.default_rng(seed), np.random.RandomState(seed)
    picks: dict[str, Indices] = {
        "motion": motion.select(signals, num_frames, rng, floor_total=1e9),
        "motion, no floor": motion.select(signals, num_frames, rng, floor=0),
        "motion, legacy": motion.select(signals, num_frames, legacy, floor_total=1e9),
        "scene": scene.select(signals, num_frames, rng),
        "activity": activity.select(signals, num_frames, rng, short_sparse_share=0.4),
        "hybrid": hybrid.select(signals, num_frames, rng),
        "hybrid, legacy": hybrid.select(signals, num_frames, legacy),
    }
    for name, chosen in picks.items():
        check_selection(chosen, num_candidates=len(change), budget=num_frames, sampler=name)


# --- Options -------------------------------------------------------------------------------------

EXTREME = [
    "sparse-dense:sparse_share=0",
    "sparse-dense:sparse_share=1",
    "motion:global_share=0:floor=0",
    "motion:global_share=1:floor=1000000:floor_total=0",
    "scene:threshold=0",
    "scene:threshold=1e300",
    "activity:sparse_share=0:short_sparse_share=0:peaks=1",
    "activity:sparse_share=1:short_sparse_share=1:peaks=1000",
    "hybrid:sparse_share=0:focus=0",
    "hybrid:sparse_share=1:uniform_share=0:focus=100",
    "hybrid:sparse_share=1:uniform_share=1",
    "enhanced-uniform:uniform_share=0",
    "enhanced-uniform:uniform_share=1",
    "diversity:same=0",
    "diversity:same=1e300",
    "shot:min_change=0:ratio=0",
    "shot:min_change=255:ratio=1e300",
    "embedding-diversity:same=0",
    "embedding-diversity:same=2",
]


@pytest.mark.parametrize("text", EXTREME)
@pytest.mark.parametrize("kind", ["still", "noise", "one-cut"])
def test_extreme_options_keep_the_contract(text: str, kind: str) -> None:
    (choice,) = parse_samplers(text, embedded=True)
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 9, 30, 300):
        luma = {
            "still": np.full((count, 8, 8), 9),
            "noise": rng.integers(0, 256, (count, 8, 8)),
            "one-cut": np.where(np.arange(count) < count // 2, 0, 255)[:, None, None]
            + np.zeros((1, 8, 8)),
        }[kind].astype(np.uint8)
        signals = Signals(np.arange(float(count)), luma, luma[:, 0].astype(np.float32))
        for num_frames in (1, 2, 3, 8, 64):
            chosen = choice.select(signals, num_frames, seed=0, video_id="v")
            assert len(chosen) == min(num_frames, count)


SIGNALS = [
    Signals(np.arange(float(len(luma))), luma, luma[:, 0].astype(np.float32) + 1)
    for luma in (
        np.full((30, 8, 8), 9, np.uint8),
        np.repeat(np.array([0, 255], np.uint8), 15)[:, None, None] * np.ones((1, 8, 8), np.uint8),
        np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8),
    )
]
NUMBERS = st.floats() | st.integers() | st.sampled_from([1.7e308, 5e-324, -0.0, 10**30, 10**5000])


@pytest.mark.parametrize("name", [n for n in sampler_names() if sampler_options(n)])
@given(data=st.data())
def test_any_number_is_refused_or_keeps_the_contract(name: str, data: st.DataObject) -> None:
    """Without a warning, which is an error here: huge, tiny, infinite and not a number."""
    options = {key: data.draw(NUMBERS, key) for key in sampler_options(name)}
    try:
        pairs = [f"{key}={value!r}" for key, value in options.items()]
    except ValueError:  # Python does not write out so many digits
        assume(False)
    try:
        (choice,) = parse_samplers(":".join([name, *pairs]), embedded=True)
    except ConfigError:
        return
    for signals in SIGNALS:
        assert len(choice.select(signals, 7, seed=0, video_id="v")) == 7


@pytest.mark.parametrize("option", ["scene:threshold", "shot:ratio"])
def test_a_threshold_beyond_all_changes_finds_none(option: str) -> None:
    huge, large = parse_samplers([f"{option}=1.7e308", f"{option}=1e6"])
    for signals in SIGNALS:
        expected = large.select(signals, 7, seed=0, video_id="v")
        assert huge.select(signals, 7, seed=0, video_id="v").tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("motion:global_share=2", "motion': global_share is 2; allowed is from 0 to 1"),
        ("motion:floor=-1", "motion': floor is -1; allowed is at least 0, finite"),
        ("motion:floor=inf", "floor is inf; allowed is at least 0, finite"),
        ("motion:floor_total=-1", "floor_total is -1; allowed is at least 0, finite"),
        ("scene:threshold=nan", "threshold is nan; allowed is at least 0, finite"),
        ("activity:peaks=-999999999999999999999", "peaks is -999999999999999999999; allowed is"),
        ("activity:peaks=0", "peaks is 0; allowed is at least 1"),
        ("activity:sparse_share=-0.1", "sparse_share is -0.1; allowed is from 0 to 1"),
        ("activity:short_sparse_share=1.1", "short_sparse_share is 1.1; allowed is from 0 to 1"),
        ("hybrid:sparse_share=9", "sparse_share is 9; allowed is from 0 to 1"),
        ("hybrid:uniform_share=9", "uniform_share is 9; allowed is from 0 to 1"),
        ("hybrid:focus=101", "focus is 101; allowed is from 0 to 100"),
        ("sparse-dense:sparse_share=9", "sparse_share is 9; allowed is from 0 to 1"),
        ("enhanced-uniform:uniform_share=9", "uniform_share is 9; allowed is from 0 to 1"),
        ("diversity:same=-1", "same is -1; allowed is at least 0, finite"),
        ("shot:min_change=256", "min_change is 256; allowed is from 0 to 255"),
        ("shot:ratio=-1", "ratio is -1; allowed is at least 0, finite"),
        ("embedding-diversity:same=3", "same is 3; allowed is from 0 to 2"),
        ("unifrom", "no sampler named 'unifrom'. Did you mean 'uniform'"),
        ("", "--sampler is empty"),
        ("uniform:x=1", "no option of sampler 'uniform' named 'x'"),
        ("base", "no sampler named 'base'"),
    ],
)
def test_what_no_sampler_is_or_takes_is_refused_before_any_video(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_samplers(text, embedded=True)


# --- A brief event in a long still video ---------------------------------------------------------


def flash(count: int, at: int) -> NDArray[np.uint8]:
    """A still video in which three frames from `at` on are brighter."""
    luma = np.full((count, 8, 8), 90, np.uint8)
    luma[at : at + 3] = 200
    return luma


def sees(picks: list[int], at: int) -> bool:
    return bool({at, at + 1, at + 2} & set(picks))


@pytest.mark.parametrize("name", ["scene", "diversity", "shot"])
@given(count=st.integers(20, 400), data=st.data())
def test_a_flash_is_always_found(name: str, count: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, count - 4))
    assert sees(choose(name, flash(count, at)), at)


@given(count=st.integers(40, 400), data=st.data())
def test_activity_finds_a_flash_unless_its_window_is_cut_at_an_end(
    count: int, data: st.DataObject
) -> None:
    """Its peak is the last frame of the flash, and the middle of five in the window around it."""
    width = count // 20 + 2
    at = data.draw(st.integers(width, count - width - 4))
    assert sees(choose("activity", flash(count, at)), at)


def wilson(hits: int, number: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / number
    centre = share + z * z / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return (centre - half) / (1 + z * z / number), (centre + half) / (1 + z * z / number)


@pytest.mark.parametrize(
    ("name", "count", "share"),
    [
        ("motion", 40, 0.985),
        ("motion", 300, 0.976),
        ("motion", 3000, 0.980),
        ("motion:floor_total=1e9", 40, 0.849),
        ("motion:floor_total=1e9", 300, 0.221),
        ("hybrid", 40, 0.981),
        ("hybrid", 300, 0.875),
    ],
)
def test_random_samplers_find_a_flash_more_often_than_uniform(
    name: str, count: int, share: float
) -> None:
    """`share` was measured on 4000 other seeds and places (1000 at 3000 frames); here are 200."""
    places = np.random.default_rng(1).integers(1, count - 4, 200).tolist()
    hits = sum(sees(choose(name, flash(count, at), seed=k), at) for k, at in enumerate(places))
    low, high = wilson(hits, 200)
    assert low - 0.01 <= share <= high + 0.01
    assert low > sum(sees(choose("uniform", flash(count, at)), at) for at in places) / 200


# --- One by one ----------------------------------------------------------------------------------


def test_sparse_dense_is_sorted_and_full_where_the_halves_meet() -> None:
    assert choose("sparse-dense", still(40)) == [0, 13, 16, 18, 20, 23, 26, 39]
    # 6 + 6, with 6 and 8 in both... the reference: 0 6 12 19 | 6 8 10 13.
    assert choose("sparse-dense", still(20)) == [0, 3, 6, 8, 10, 12, 13, 19]


def test_motion_without_a_floor_takes_what_moves() -> None:
    luma = still(100)
    luma[40:46] = np.arange(100, 160, 10)[:, None, None]
    picks = choose("motion:floor=0", luma)
    assert {0, 99} < set(picks) < {0, 99, 40, 41, 42, 43, 44, 45, 46}


def plain_motion(energy: NDArray[np.float64], num_frames: int, rng: np.random.Generator) -> Indices:
    """A quarter evenly, the others by e / (max e + 0.00001) + 0.1, anew while some are missing."""
    weights = energy / (energy[1:].max() + 1e-5) + 0.1
    chosen = common.spaced(0, len(energy) - 1, max(num_frames // 4, 1))
    size, free = num_frames - len(chosen), np.arange(1, len(energy))
    while size:
        chosen = common.merge(chosen, common.draw(rng, free, size, weights[free]))
        size, free = num_frames - len(chosen), np.setdiff1d(np.arange(len(energy)), chosen)
    return chosen


@given(change=CHANGES, num_frames=st.integers(1, 16), seed=st.integers(0, 99))
def test_motion_without_a_bound_is_the_reference_s_rule(
    change: NDArray[np.float64], num_frames: int, seed: int
) -> None:
    """The bound of the floors binds above 10 frames only; 1e9 lifts it at any length."""
    luma = np.zeros((len(change), 1, 1), np.uint8)
    luma[:, 0, 0] = change.astype(np.int64) % 256
    signals = Signals(np.arange(float(len(luma))), luma)
    assume(num_frames < len(change))
    energy = signals.squared_change / motion.LEVELS_PER_UNIT**2
    theirs = plain_motion(energy, num_frames, np.random.default_rng(seed))
    lifted = motion.select(signals, num_frames, np.random.default_rng(seed), floor_total=1e9)
    np.testing.assert_array_equal(lifted, theirs)
    if len(luma) <= 10:
        ours = motion.select(signals, num_frames, np.random.default_rng(seed))
        np.testing.assert_array_equal(ours, theirs)


def test_motion_counts_noise_below_a_fifth_of_a_grey_level_as_still() -> None:
    """As in the reference, whose constant is in units of its normalised pictures."""
    quiet, loud = still(60), still(60)
    quiet[30, 0, 0] += 1  # mean square 1 / 1024
    loud[30] += 3
    hits = [
        sum(30 in choose("motion:floor=0.01", luma, seed=seed) for seed in range(200))
        for luma in (quiet, loud)
    ]
    assert hits[0] < 100
    assert hits[1] > 190


def test_scene_takes_the_frame_after_each_cut_and_frame_0() -> None:
    luma = still(60, 0)
    for at, level in ((10, 80), (25, 160), (50, 240)):
        luma[at:] = level
    picks = choose("scene", luma)
    assert {0, 10, 25, 50} <= set(picks)
    assert choose("scene", luma, 3)[0] == 0


def test_scene_with_more_cuts_than_frames_keeps_the_largest() -> None:
    change = np.zeros(400)
    change[[50, 100, 150, 200, 250]] = [10, 30, 20, 30, 40]
    assert changing_picks("scene", change, 4) == [0, 100, 200, 250]
    assert changing_picks("scene", change, 3) == [0, 100, 250]
    assert changing_picks("scene", change, 1) == [0]


def test_diversity_spreads_over_time_where_nothing_differs() -> None:
    assert choose("diversity", still(20), 4) == [0, 5, 10, 15]
    noisy = still(200)
    noisy[:, :2, :2] += np.random.default_rng(0).integers(0, 2, (200, 2, 2), dtype=np.uint8)
    assert choose("diversity", noisy, 4) == [0, 50, 100, 150]
    assert choose("diversity:same=0", noisy, 4) != [0, 50, 100, 150]


def test_diversity_counts_a_difference_at_its_limit_as_none() -> None:
    luma = still(20)
    luma[7, :8] += 1  # mean square 256 / 1024
    assert choose("diversity", luma, 4) == [0, 5, 10, 15]
    luma[7, 8, 0] += 1
    assert 7 in choose("diversity", luma, 4)


def test_diversity_takes_every_kind_of_picture() -> None:
    luma = np.repeat(np.array([0, 60, 120, 180, 240], np.uint8), 20)[:, None, None]
    luma = luma + np.zeros((1, 32, 32), np.uint8)
    assert choose("diversity", luma, 5) == [0, 20, 40, 60, 80]


def test_activity_adds_the_frames_after_the_largest_changes() -> None:
    """One peak window of three each, by the reference, leaves two frames of eight to give."""
    luma = still(60, 0)
    for at, level in ((12, 40), (28, 120), (44, 180), (53, 200)):
        luma[at:] = level
    picks = choose("activity", luma)
    assert {0, 29, 59} <= set(picks)  # even
    assert {8, 24, 40} <= set(picks)  # the first of each window, as in the reference: 3 before
    assert len(picks) == 8


def plain_activity(steps: list[float], num_frames: int, sparse_share: float) -> list[int]:
    """The docstring of `activity`, word for word; the reference's own way to cut the windows."""
    count = len(steps) + 1
    if num_frames >= count:
        return list(range(count))
    ns = max(math.floor(num_frames * sparse_share + 1e-9), 1)
    nd = num_frames - ns
    chosen = {int(i) for i in np.linspace(0, count - 1, ns)}

    def add_changes(frames: set[int], target: int) -> None:
        for step in sorted(range(count - 1), key=lambda k: (-steps[k], k)):
            if len(frames) < target and steps[step] > 0 and not {step, step + 1} & frames:
                frames.add(step + 1)

    if count > 2 * ns:
        peaks = activity.find_peaks(np.array(steps), max(3, count // 20)) if count > 6 else []
        highest = sorted((int(p) for p in peaks), key=lambda p: (-steps[p], p))[:3]
        found: list[int] = []
        if not highest:
            first = max(0, count // 2 - nd // 2)
            found = [int(i) for i in np.linspace(first, min(count, first + nd) - 1, nd)]
        for peak in highest:
            w = max(2, count // 20)
            window = range(max(0, peak - w), min(count - 1, peak + w) + 1)
            each = nd // len(highest)
            if len(window) - 1 > each:
                found += [int(i) for i in np.linspace(window[0], window[-1], each)]
            else:
                found += list(window)
        dense = set(list(dict.fromkeys(found))[:nd])
        add_changes(dense, nd)
        chosen |= dense
    add_changes(chosen, num_frames)
    return common.fill_gaps(np.array(sorted(chosen)), count, num_frames).tolist()


@given(
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=90),
    num_frames=st.integers(1, 40),
    sparse_share=st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]),
)
# Windows of 5 where 4 each are due: the third gives 2, as in the reference.
@example(
    steps=[3 * (n == 10) + 2 * (n == 24) + (n == 38) for n in range(49)],
    num_frames=20,
    sparse_share=0.4,
)
def test_activity_is_the_plain_one(steps: list[int], num_frames: int, sparse_share: float) -> None:
    name = f"activity:sparse_share={sparse_share}:short_sparse_share={sparse_share}"
    got = changing_picks(name, [0, *steps], num_frames)
    assert got == plain_activity([float(step) for step in steps], num_frames, sparse_share)


@pytest.mark.parametrize(("count", "share"), [(24, 0.6), (25, 0.4)])
def test_activity_spreads_more_frames_in_a_short_video(count: int, share: float) -> None:
    luma = np.random.default_rng(0).integers(0, 256, (count, 32, 32)).astype(np.uint8)
    expected, other = (
        choose(f"activity:sparse_share={one}:short_sparse_share={one}", luma)
        for one in (share, 1 - share)
    )
    assert choose("activity", luma) == expected != other


@given(change=st.lists(st.integers(0, 4), min_size=8, max_size=24), seed=st.integers(0, 99))
@example(change=[2, 0, 0, 1, 0, 2, 2, 0, 1], seed=0)  # rounding would make it 6, not 4
@example(change=[1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1], seed=0)
def test_hybrid_looks_where_most_changes_first(change: list[int], seed: int) -> None:
    """Tenths, whose sums are not exact: equal means are equal all the same."""
    count = len(change)
    steps = [0, *change[1:], 0]
    around = [steps[i] + steps[i + 1] for i in range(count)]
    windows = [around[max(0, i - 2) : i + 3] for i in range(count)]
    means = [Fraction(sum(window), len(window)) for window in windows]
    centre = means.index(max(means)) if any(around) else count // 2
    rng = np.random.default_rng(seed)
    # So sharply focused, one draw in a thousand misses the centre; the median of nine does not.
    signals = changing(np.array(change) / 10, np.zeros(count))
    picks = [hybrid.select(signals, 1, rng, sparse_share=0, focus=100)[0] for _ in range(9)]
    assert np.median(picks) == centre


def test_hybrid_draws_what_is_missing_around_the_busiest_time() -> None:
    luma = still(200)
    luma[95:105] = np.arange(100, 200, 10)[:, None, None]
    for seed in range(100):
        picks = choose("hybrid", luma, seed=seed)
        assert {0, 199} < set(picks)
        assert all(60 <= i < 140 for i in picks[1:-1])


def test_hybrid_survives_one_cut_in_a_frozen_video() -> None:
    """The reference raises: two frames have a change, three are to be drawn by it."""
    luma = still(40)
    luma[20:] = 200
    for seed in range(20):
        picks = choose("hybrid", luma, 16, seed)
        assert len(picks) == 16


def test_enhanced_uniform_takes_no_more_of_the_start_than_a_tenth() -> None:
    assert choose("enhanced-uniform", still(9), 6) == [0, 2, 3, 5, 7, 8]
    assert choose("enhanced-uniform", still(200), 20) == sorted(
        {int(i) for i in np.linspace(0, 199, 16)} | {1, 2, 197, 198}
    )


def test_segments() -> None:
    assert choose("segment", still(40)) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert choose("segment", still(3), 1) == [1]
    picks = np.array([choose("segment-random", still(40), seed=seed) for seed in range(300)])
    np.testing.assert_array_equal(picks // 5, np.tile(np.arange(8), (300, 1)))
    assert {int(i) for i in picks[:, 3]} == {15, 16, 17, 18, 19}


def shots(*lengths: int, seed: int = 0) -> NDArray[np.uint8]:
    """Shots of slowly changing noise pictures."""
    rng = np.random.default_rng(seed)
    parts = []
    for length in lengths:
        picture = rng.integers(20, 236, (1, 32, 32))
        drift = np.linspace(-15, 15, length)[:, None, None]
        parts.append(np.clip(picture + drift, 0, 255).astype(np.uint8))
    return np.concatenate(parts)


def test_shot_takes_the_middle_of_every_shot() -> None:
    luma = shots(21, 41, 11, 31)
    assert shot.find_cuts(common.absolute_change(luma)).tolist() == [21, 62, 73]
    assert choose("shot", luma, 4) == [10, 41, 67, 88]
    assert choose("shot", luma, 2) == [41, 88]  # the longest
    assert len(choose("shot", luma, 9)) == 9


def test_shot_sees_no_cut_in_motion_or_in_a_fade() -> None:
    fade = np.linspace(0, 255, 20)[:, None, None] + np.zeros((1, 32, 32))
    assert not len(shot.find_cuts(common.absolute_change(fade.astype(np.uint8))))
    pan = np.stack([np.roll(shots(1)[0], shift, axis=1) for shift in range(20)])
    assert not len(shot.find_cuts(common.absolute_change(pan)))


@given(change=hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 40)))
def test_cuts_are_the_plain_ones(change: NDArray[np.int64]) -> None:
    expected = []
    for i in range(1, len(change)):
        near = [change[j] for j in (i - 2, i - 1, i + 1, i + 2) if 1 <= j < len(change)]
        around = sum(near) / len(near) if near else 0
        if change[i] >= 10 and change[i] >= 2.5 * around:
            expected.append(i)
    assert shot.find_cuts(change.astype(float)).tolist() == expected


def test_no_change_is_no_cut_whatever_the_options() -> None:
    assert not len(shot.find_cuts(np.zeros(9), min_change=0, ratio=0))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), data=st.data())
def test_shares_are_fair(lengths: list[int], data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, sum(lengths)))
    shares = shot.share_out(np.array(lengths), budget)
    assert shares.sum() == budget
    assert (shares <= lengths).all()
    pairs = list(zip(shares.tolist(), lengths, strict=True))
    if len(lengths) <= budget:
        assert (shares >= 1).all()
        # None has two more than its part of what is left after one each.
        rest, left = budget - len(lengths), sum(lengths) - len(lengths)
        assert all(abs((s - 1) * left - rest * (n - 1)) < max(left, 1) for s, n in pairs)
    else:
        assert max((n for s, n in pairs if not s), default=0) <= min(n for s, n in pairs if s)


def test_the_central_frame_is_the_typical_one() -> None:
    assert shot.central_frame(still(9)) == 4
    assert shot.central_frame(still(8)) == 3
    levels = np.array([10, 110, 20, 30, 200, 200, 200], np.uint8)  # mean 110
    assert shot.central_frame(levels[:, None, None] + np.zeros((1, 4, 4), np.uint8)) == 1
    levels = np.array([120, 100, 100, 100, 60, 90, 200], np.uint8)  # mean 110; four at 10
    assert shot.central_frame(levels[:, None, None] + np.zeros((1, 4, 4), np.uint8)) == 3


def on_circle(*degrees: float) -> NDArray[np.float64]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_embedding_diversity_starts_at_the_medoid_and_goes_far() -> None:
    rows = on_circle(80, 0, 10, 12, 20, 30)
    lengths = np.array([1, 900, 3, 1, 0.1, 5])[:, None]  # length must not matter
    assert embedded_picks(rows * lengths, 1) == [4]
    assert embedded_picks(rows * lengths, 2) == [0, 4]
    assert embedded_picks(rows * lengths, 3) == [0, 1, 4]


@given(degrees=st.lists(st.integers(0, 80), min_size=1, max_size=12, unique=True))
def test_the_medoid_is_the_plain_one(degrees: list[int]) -> None:
    rows = on_circle(*degrees)
    sums = (1 - rows @ rows.T).sum(axis=1)
    best = np.flatnonzero(sums <= sums.min() + 1e-5)
    assume(len(best) == 1)
    assert embedded_picks(rows, 1) == best.tolist()


def test_embedding_diversity_spreads_equal_embeddings_over_time() -> None:
    assert embedded_picks(np.ones((20, 4), np.float16), 4) == [0, 5, 10, 15]
    assert embedded_picks(np.zeros((20, 4), np.float16), 4) == [0, 1, 2, 3]


def test_embeddings_equal_up_to_rounding_are_equal() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = rng.standard_normal((2, 64))
        rows = np.concatenate([np.tile(first, (8, 1)), np.tile(second, (5, 1))])
        rows *= rng.uniform(0.1, 10, (13, 1))
        assert embedded_picks(rows, 1) == [0]
        assert embedded_picks(rows, 2) == [0, 8]


def test_embedding_diversity_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        embedded_picks(np.array([[1.0, np.nan]]), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["motion", "scene", "diversity", "activity", "hybrid", "shot"])
def test_native_rate(name: str) -> None:
    """100,000 thumbnails: an hour at 28 frames a second."""
    rng = np.random.default_rng(0)
    luma = np.repeat(rng.integers(0, 256, (500, 32, 32), dtype=np.uint8), 200, axis=0)
    signals = Signals(np.arange(100_000) * 0.04, luma)
    chosen = SamplerChoice(name).select(signals, 64, seed=0, video_id="v")
    assert len(chosen) == 64

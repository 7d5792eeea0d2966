"""One rule for which file a name means: separators, folders, extensions, spellings, case."""

import time
import unicodedata
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vtr.names import match_names, normal_path, without_extension

FILES = ("cats/one.mp4", "cats/two.mp4", "dogs/one.mp4", "dogs/three.mp4")


@pytest.mark.parametrize(
    "spell",
    [
        "{}".format,
        "./{}".format,
        "/srv/videos/{}".format,
        "/data/me/clips/{}".format,
        "videos/{}".format,
        "../videos/{}".format,
        "~/videos/{}".format,
        "file:///srv/{}".format,
        lambda name: name.replace("/", "//"),
        lambda name: name.replace("/", "\\"),
        lambda name: "D:\\clips\\" + name.replace("/", "\\"),
        lambda name: "\\\\nas\\share\\" + name.replace("/", "\\"),
        lambda name: name.removesuffix(".mp4"),
        lambda name: name.replace(".mp4", ".avi"),
        lambda name: name.replace(".mp4", ".MP4"),
        lambda name: name.replace(".mp4", ".npy"),
        lambda name: "/srv/x/" + name.replace(".mp4", ".webm"),
    ],
)
def test_every_spelling_of_a_path_finds_its_own_file(spell) -> None:  # type: ignore[no-untyped-def]
    match = match_names([spell(file) for file in FILES], FILES)
    assert match.files == {spell(file): (file,) for file in FILES}
    assert match.free == ()


@pytest.mark.parametrize("name", FILES)
def test_features_of_sub_folders_meet_the_videos(name: str) -> None:
    arrays = [file.replace(".mp4", ".npy") for file in FILES]
    assert match_names([name], arrays).files == {name: (name.replace(".mp4", ".npy"),)}


@pytest.mark.parametrize(
    "lost",
    [
        "cats/three.mp4",
        "cats/three",
        "cats/three.avi",
        "cats\\three.mp4",
        "/srv/videos/cats/three.mp4",
        "videos/cats/three.mp4",
        "D:\\clips\\cats\\three.mp4",
    ],
)
@pytest.mark.parametrize("others", [(), FILES, ("dogs/three.mp4",)])
def test_a_lost_file_never_takes_one_of_another_folder(lost: str, others: tuple[str, ...]) -> None:
    match = match_names([lost, *others], FILES)
    assert lost not in match.files | match.spellings | match.contested
    assert {other: (other,) for other in others} == match.files


@pytest.mark.parametrize(
    ("names", "files", "found"),
    [
        # The longest common tail wins, the whole path before a tail of the file's.
        (["cats/a.mp4"], ["a.mp4", "x/cats/a.mp4"], {"cats/a.mp4": ("x/cats/a.mp4",)}),
        (["a.mp4"], ["a.mp4", "cats/a.mp4"], {"a.mp4": ("a.mp4",)}),
        (["/x/cats/a.mp4"], ["a.mp4", "cats/a.mp4"], {"/x/cats/a.mp4": ("cats/a.mp4",)}),
        # Another extension, only in the same folder and only where nobody has a better claim.
        (["cats/a.avi"], ["a.mp4"], {}),
        (["cats/a.avi"], ["dogs/a.avi", "cats/a.mp4"], {"cats/a.avi": ("cats/a.mp4",)}),
        (["a.avi", "a.mp4"], ["a.mp4"], {"a.mp4": ("a.mp4",)}),
        (["a.avi", "b.avi"], ["a.mp4", "b.avi.mp4"],
         {"a.avi": ("a.mp4",), "b.avi": ("b.avi.mp4",)}),
        # Several files fit equally well.
        (["a.mp4"], ["cats/a.mp4", "dogs/a.mp4"], {"a.mp4": ("cats/a.mp4", "dogs/a.mp4")}),
        (["v"], ["a/v.mp4", "v.webm"], {"v": ("a/v.mp4", "v.webm")}),
        (["a/v"], ["a/v.mp4", "b/a/v.mp4"], {"a/v": ("a/v.mp4",)}),
        (["a.mp4", "cats/a.mp4"], ["cats/a.mp4", "dogs/a.mp4"],
         {"cats/a.mp4": ("cats/a.mp4",), "a.mp4": ("dogs/a.mp4",)}),
        # Folders of lists and of a flat archive; dots in ids; a dot at the end; numbers.
        (["train/v0.mp4", "test/v1.mp4"], ["v0.mp4", "v1.mp4"],
         {"train/v0.mp4": ("v0.mp4",), "test/v1.mp4": ("v1.mp4",)}),
        (["v_abc.def", "7", "x."], ["v_abc.def.mp4", "a/7.webm", "x.mp4"],
         {"v_abc.def": ("v_abc.def.mp4",), "7": ("a/7.webm",), "x.": ("x.mp4",)}),
        (["clips/a.mp4", "clips/b"], ["a", "b"], {"clips/a.mp4": ("a",), "clips/b": ("b",)}),
        # A file at the top is not that of a folder while names start at the top.
        (["one.mp4", "dogs/two.mp4"], ["one.mp4", "two.mp4"], {"one.mp4": ("one.mp4",)}),
        (["/v/one.mp4", "/v/dogs/one.mp4"], ["one.mp4"], {"/v/one.mp4": ("one.mp4",)}),
        (["/v/one.mp4", "/v/dogs/two.mp4"], ["one.mp4", "two.mp4"], {"/v/one.mp4": ("one.mp4",)}),
    ],
)  # fmt: skip
def test_which_file_fits(
    names: list[str], files: list[str], found: dict[str, tuple[str, ...]]
) -> None:
    for order in (names, names[::-1]):
        assert match_names(order, files).files == found


def test_another_spelling_shares_the_file_and_a_contradiction_gives_it_to_nobody() -> None:
    match = match_names(["x", "x.mp4", "./x.mp4", "/srv/x.mp4"], ["x.mp4"])
    assert match.files.keys() | match.spellings.keys() == {"x", "x.mp4", "./x.mp4", "/srv/x.mp4"}
    assert set(match.files.values()) == {("x.mp4",)}
    for pair in (["a/x.mp4", "b/x.mp4"], ["x.avi", "x.mov"], ["/a/x.mp4", "/b/x.mp4"]):
        match = match_names(pair, ["x.mp4"])
        assert match.files == match.spellings == {}
        assert match.contested == dict.fromkeys(pair, "x.mp4")
        assert match.free == ()


def test_composition_does_not_matter_and_twins_are_kept_apart() -> None:
    composed, split = (unicodedata.normalize(form, "cafés/é.mp4") for form in ("NFC", "NFD"))
    for name, file in product((composed, split, composed[:-4], split[:-4]), (composed, split)):
        assert match_names([name], [file]).files == {name: (file,)}
    assert match_names([composed], [split, composed]).files == {composed: (split, composed)}


def test_case_is_only_forgiven_on_request_and_where_it_is_unique() -> None:
    names = [file.upper() for file in FILES]
    assert match_names(names, FILES).files == {}
    match = match_names(names, FILES, any_case=True)
    assert match.recased == dict(zip(names, FILES, strict=True))
    assert match.files == {name: (file,) for name, file in match.recased.items()}
    assert match_names(["A.mp4"], ["a.mp4", "a.MP4"], any_case=True).files == {}
    assert match_names(["A", "a"], ["a.mp4"], any_case=True).files == {"a": ("a.mp4",)}
    assert match_names(["aB", "Ab"], ["ab.mp4"], any_case=True).files == {}
    blank = {"x/a.mp4": ("x/ a.mp4",), "a .mp4": ("a .mp4",)}
    assert match_names(blank, ["x/ a.mp4", "a .mp4"], any_case=True).files == blank


def test_extensions_and_normal_paths() -> None:
    assert without_extension("a.Mp4") == "a"
    assert without_extension("a.npy", {".mp4"}) == "a.npy"
    assert normal_path("a\\b//./c.mp4") == "a/b/c.mp4"
    assert normal_path("C:\\a.mp4") == "/C:/a.mp4"
    assert normal_path("../a.mp4") == "/a.mp4"
    assert normal_path("/") == "/"
    assert match_names(["/", "", "."], FILES).files == {}


PARTS = st.lists(st.sampled_from(["a", "b", "A"]), min_size=1, max_size=3).map("/".join)
PATHS = st.lists(st.tuples(PARTS, st.sampled_from([".mp4", ".avi", ""])).map("".join), max_size=7)


@given(PATHS, PATHS, st.booleans())
@example(["b.mp4", "b.avi"], ["a/a/b", "a/b"], False)
def test_a_file_is_given_once_and_no_folder_contradicts(
    names: list[str], files: list[str], any_case: bool
) -> None:
    match = match_names(names, files, any_case=any_case)
    given_files = [file for fit in match.files.values() for file in fit]
    assert len(given_files) == len(set(given_files))
    assert not match.files.keys() & match.contested.keys()
    assert set(given_files) | set(match.contested.values()) | set(match.free) == set(files)
    assert set(match.spellings.values()) <= set(given_files) | set(match.contested.values())
    fold = str.casefold if any_case else str
    for name, fit in match.files.items():
        for file in fit:
            one = fold(without_extension(name))
            two = fold(without_extension(file))
            assert one == two or one.endswith(f"/{two}") or two.endswith(f"/{one}")
    assert match_names(files, files).files == {file: (file,) for file in files}


def grade(name: str, file: str) -> tuple[int, int, bool] | None:
    """Returns how badly a name fits a file by the rule's own words, None where it does not."""
    stem, bare = without_extension(name), without_extension(file)
    kinds = [(name, file), (name, bare), (stem, bare)]
    for kind, (one, two) in enumerate(kinds):
        if one == two or two.endswith(f"/{one}"):
            return -len(one.split("/")), kind, one != two and (kind != 1 or "/" in one)
    for kind, (one, two) in enumerate(kinds):
        if one.endswith(f"/{two}") and (kind < 2 or "/" in two or two == file):
            return -len(two.split("/")), kind, False
    return None


@given(PATHS.filter(bool), PATHS)
def test_one_name_takes_the_best_of_all_files(names: list[str], files: list[str]) -> None:
    grades = {file: grade(names[0], file) for file in files}
    best = min((found for found in grades.values() if found), default=None)
    fitting = tuple(file for file in grades if best is not None and grades[file] == best)
    assert match_names(names[:1], files).files == ({names[0]: fitting} if fitting else {})


def test_a_name_of_a_hundred_thousand_folders_is_no_work() -> None:
    names = ["a/" * 100_000 + f"{number}.mp4" for number in range(20)]
    assert match_names(names, ["0.mp4", "a/1.mp4"]).files == {}


@pytest.mark.slow
def test_the_time_per_name_does_not_grow() -> None:
    def seconds(count: int) -> float:
        files = [f"part{i % 100}/{i}/video.mp4" for i in range(count)]  # one name, many times
        names = [f"/srv/{file}" for file in files] + [f"lost/{i}/video" for i in range(2 * count)]
        start = time.process_time()
        assert len(match_names(names, files).files) == count
        return (time.process_time() - start) / count

    seconds(10)
    assert seconds(20_000) < 4 * seconds(2_000)

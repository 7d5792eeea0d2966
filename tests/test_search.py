"""`vtr search`: a folder, a sentence, the moments that show it."""

from pathlib import Path

import pytest
from builders import patchwork, run_app, write_clip

from vtr.demo import demo_model_folder
from vtr.searching.folder import FolderSource
from vtr.searching.library import Library
from vtr.searching.query import Query

MODEL = str(demo_model_folder())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three clips of two scenes each, 3 s and 3 s, with its index."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(3):
        scenes = [
            picture for seed in (2 * n, 2 * n + 1) for picture in patchwork(1, seed=seed) * 12
        ]
        write_clip(folder / ("sub" if n else "") / f"{n}.mp4", scenes)
    Library(FolderSource(folder, model=MODEL, device="cpu"))
    return folder


def test_a_moment_of_a_library_is_found_again(clips: Path) -> None:
    library = Library(FolderSource(clips, device="cpu"))
    answer = library.search(Query(like=(("sub/1.mp4", 4.0),)), top=2)
    first = (answer.hits or answer.nearest)[0]
    assert (first.video_id, first.path) == ("sub/1.mp4", clips / "sub/1.mp4")
    assert (first.start_seconds, first.end_seconds) == (pytest.approx(3, abs=0.3), 6.0)


def test_the_command_answers(clips: Path) -> None:
    run_app("search", clips, "a red circle", "--device", "cpu")

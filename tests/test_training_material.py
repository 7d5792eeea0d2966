"""What `vtr train` trains and validates on, told from a folder's captions and a store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import write_captions, write_store

from vtr.api.train_data import TrainingData, read_training_data
from vtr.features import FeatureSpec, VideoRow
from vtr.verbs.train import Recipe
from vtr.workspace import Workspace

Row = Callable[..., VideoRow]
IDS = [f"v{n:02}.mp4" for n in range(24)]
RECIPE = Recipe(head="meanP")


@pytest.fixture
def material(
    tmp_path: Path, spec: FeatureSpec, row_factory: Row
) -> Callable[[str, set[str], Recipe], TrainingData]:
    """Gathers the data of 20 training videos and 4 of another split, some never extracted."""

    def make(other: str, absent: set[str], recipe: Recipe = RECIPE) -> TrainingData:
        (tmp_path / "videos").mkdir()
        for name in IDS:
            (tmp_path / "videos" / name).touch()
        rows = [(name, f"thing {n}", "TRAIN" if n < 20 else other) for n, name in enumerate(IDS)]
        write_captions(tmp_path / "captions.json", [*rows, ("gone.mp4", "something else", "test")])
        kept = [row_factory(name, 3) for name in IDS if name not in absent]
        write_store(tmp_path / "features", kept, replace(spec, samplers=("uniform",)))
        return read_training_data(workspace(tmp_path), recipe)

    return make


def workspace(folder: Path) -> Workspace:
    return Workspace.at(
        folder,
        dataset="folder",
        videos=folder / "videos",
        annotations=folder / "captions.json",
        features=folder / "features",
    )


def test_a_share_of_training_is_held_out_where_the_files_give_no_validation_split(
    material: Callable[..., TrainingData], capsys: pytest.CaptureFixture[str]
) -> None:
    found = material("test", set(), RECIPE.changed(hold_out=0.2))
    assert found.held_out
    assert found.selection.endswith("on 4 videos held out of the training split")
    assert len(found.train.video_ids) == 16
    assert "--hold-out" not in capsys.readouterr().err, "it is heeded"


def test_a_validation_split_of_any_spelling_is_used(
    material: Callable[..., TrainingData], capsys: pytest.CaptureFixture[str]
) -> None:
    found = material("Val", set(), RECIPE.changed(hold_out=0.2))
    assert not found.held_out
    assert found.selection.endswith("on the 4 videos of the validation split")
    assert len(found.train.video_ids) == 20
    assert "has the validation split 'val'" in capsys.readouterr().err


def test_epochs_are_judged_on_all_videos_and_absent_ones_are_misses(
    material: Callable[..., TrainingData],
) -> None:
    found = material("val", {"v20.mp4", "v22.mp4", "v23.mp4", "v03.mp4"})
    assert found.task.video_ids == ("v21.mp4",)
    assert found.task.texts == ("thing 20", "thing 21", "thing 22", "thing 23")  # misses count
    assert found.selection.endswith(
        "on the 1 video of the validation split (3 more have no features: misses)"
    )
    assert found.skipped == {"v03.mp4": "not in the store"}


def test_without_any_validation_video_the_last_epoch_counts(
    material: Callable[..., TrainingData],
) -> None:
    found = material("val", set(IDS[20:]))
    assert found.task is None
    assert found.selection == "last epoch: no validation data"

"""`vtr export --reference`: what CLIP4Clip's own code loads, and what comes back from it.

Names and types: those of CLIP4Clip@508ffa3's own model with its float16 trunk (tests/golden).
golden/clip4clip_own_code.npz is what its own code makes of our files, its trunk then float32:
`*/order` of its state dict, `*/sim` of the first of golden/finetune_batches.npz, and the state of
its BertAdam after the six steps of golden/finetune.npz, whose losses it gives to 5e-7.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import golden, make_run, run_app
from torch import Tensor

from tests import test_finetune_golden as trajectories
from tests import test_import_command as imports
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.temporal import follows_in_clip
from vtr.errors import ConfigError
from vtr.train.checkpoint import Progress, save_checkpoint
from vtr.train.headlist import build_head, parse_head
from vtr.train.heads.base import Head, TextBatch, VideoBatch
from vtr.train.loop import METRICS
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.presets import TrainSettings
from vtr.train.reference_files import MODEL_FILE, _groups, last_epoch
from vtr.train.run import LAST, append_line, load_run, start_run, write_run
from vtr.train.text_tower import FrozenText, TextSpec

clip = trajectories.clip  # a fixture


def exported(folder: Path, head: str, words: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Import and export again."""
    imports.imported(folder, state, "--clip", words, head=head)
    run_app("export", "--run", folder / "out" / "run", "--out", folder / "given", "--reference")
    return torch.load(folder / "given" / MODEL_FILE, weights_only=True)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imports.tiny.write_tokeniser(tmp_path_factory.mktemp("words"), 300)


@pytest.mark.parametrize("head", ["meanP", "seqLSTM", "seqTransf", "tightTransf"])
def test_names_order_shapes_and_numbers_are_the_reference_s(
    tmp_path: Path, words: Path, head: str
) -> None:
    published, listed = imports.published(head), golden("clip4clip_checkpoint")
    loaded = exported(tmp_path, head, words, published)
    assert set(loaded) == set(listed[f"{head}/names"])
    ours = [name for name in loaded if not name.startswith("clip.")]
    assert ours == [name for name in published if not name.startswith("clip.")]
    for name, value in loaded.items():
        assert value.shape == published[name].shape, name
        if name != "frame_position_embeddings.weight" or head != "seqLSTM":  # read by nothing
            assert torch.equal(value.float(), published[name].float()), name


@pytest.mark.parametrize("head", ["meanP", "seqTransf"])
def test_types_are_those_of_convert_weights(tmp_path: Path, words: Path, head: str) -> None:
    listed = golden("clip4clip_checkpoint")
    wanted = dict(zip(listed[f"{head}/names"], listed[f"{head}/dtype"], strict=True))
    loaded = exported(tmp_path, head, words, imports.published(head))
    assert {name: str(value.dtype) for name, value in loaded.items()} == {
        name: f"torch.{kind}" for name, kind in wanted.items()
    }


def test_temporal_patches_stand_beside_the_flat_ones(tmp_path: Path, words: Path) -> None:
    temporal = imports.tiny.temporal_state(golden("clip_tiny"))
    state = imports.published("meanP") | {f"clip.{n}": value for n, value in temporal.items()}
    loaded = exported(tmp_path, "meanP", words, state)
    assert set(loaded) == set(golden("finetune")["meanP_f0_3d/names"])
    name = "clip.visual.conv2.weight"
    assert loaded[name].dtype == torch.float16, "convert_weights takes Conv3d too"
    assert torch.equal(loaded[name].float(), state[name].float())


def test_fewer_places_than_words_are_filled_as_the_reference_begins(
    tmp_path: Path, words: Path
) -> None:
    published = imports.published("seqTransf")
    table = "frame_position_embeddings.weight"
    loaded = exported(tmp_path, "seqTransf", words, {**published, table: published[table][:8]})
    assert torch.equal(loaded[table][:8], published[table][:8])
    assert torch.equal(loaded[table][8:], published["clip.positional_embedding"][8:].float())


def similarity(folder: Path) -> np.ndarray:
    """What an imported run makes of pixels and words of the first golden batch."""
    batch = {name: array[0] for name, array in golden("finetune_batches").items()}
    run, backbone = load_run(folder / "run"), load_backbone(str(folder / "clip"), device="cpu")
    mask = batch["frame_mask"].astype(bool)
    mean, std = (torch.tensor(getattr(backbone.preprocessing, name)) for name in ("mean", "std"))
    pixels = (torch.from_numpy(batch["frames"][mask]).float() / 255 - mean) / std
    offsets = [0, *mask.sum(1).cumsum().tolist()]
    frames = torch.zeros(*mask.shape, backbone.embedding_dim)
    with torch.no_grad():
        follows = follows_in_clip(offsets, offsets[-1]) if backbone.temporal else None
        frames[mask] = backbone._image_features(pixels.permute(0, 3, 1, 2), follows)
        texts = backbone.encode_texts(imports.tiny.spell(batch["ids"])).embeddings
        videos = VideoBatch(frames, torch.from_numpy(mask))
        scores = run.model.head.similarity(TextBatch(torch.from_numpy(texts)), videos)
        return (scores * run.model.scale()).numpy()


@pytest.mark.parametrize("case", ["meanP", "seqLSTM", "seqTransf", "tightTransf", "meanP_3d"])
def test_its_own_code_scores_our_file_as_we_do(tmp_path: Path, words: Path, case: str) -> None:
    head, _, temporal = case.partition("_")
    state, theirs = imports.published(head), golden("clip4clip_own_code")
    if temporal:
        more = imports.tiny.temporal_state(golden("clip_tiny"))
        state |= {f"clip.{name}": value for name, value in more.items()}
    loaded = exported(tmp_path, head, words, state)
    assert list(loaded) == theirs[f"{case}/order"].tolist()
    found = similarity(tmp_path / "out")
    np.testing.assert_allclose(found, theirs[f"{case}/sim"], rtol=0, atol=5e-5)
    again = tmp_path / "again"
    again.mkdir()
    imports.imported(again, loaded, "--clip", words, head=head)
    np.testing.assert_array_equal(similarity(again / "out"), found)


OPTIMISED = ["meanP_f0", "seqTransf_f0", "seqLSTM_f0", "tightTransf_f0", "seqTransf_f1_3d"]


@pytest.mark.parametrize("name", OPTIMISED)
def test_its_optimiser_goes_on_from_our_state(
    tmp_path: Path, clip: Callable[[float], Backbone], name: str
) -> None:
    case, arrays = trajectories.Case(name, clip, tmp_path), golden("clip4clip_own_code")
    case.run()
    config = {"model": asdict(case.spec), "settings": asdict(case.trainer.settings)}
    start_run(tmp_path, config=config, train_ids=())
    save_checkpoint(tmp_path / LAST, case.model, case.trainer.optimiser, Progress(epoch=2))
    for epoch in (1, 2):
        append_line(tmp_path / METRICS, json.dumps({"epoch": epoch, "steps": 3, "loss": 1.0}))
    last = last_epoch(tmp_path, case.backbone)
    document = last.optimiser["optimizer_state_dict"]
    order, groups = arrays[f"{name}/flat"].tolist(), document["param_groups"]
    assert [len(group["params"]) for group in groups] == arrays[f"{name}/groups"].tolist()
    assert [n for group in groups for n in group["params"]] == list(range(len(order)))
    assert {group["t_total"] for group in groups} == {case.config["t_total"]}
    steps = {n: step for n, step in enumerate(arrays[f"{name}/step"].tolist()) if step}
    assert {n: state["step"] for n, state in document["state"].items()} == steps
    final = dict(zip(case.arrays["names"], case.arrays["final_pick"], strict=True))
    for n in steps:
        assert last.weights[order[n]].shape == document["state"][n]["next_m"].shape
        np.testing.assert_allclose(  # half precision
            picked(last.weights[order[n]], 16), final[order[n]], rtol=1e-3, atol=1e-5
        )
        for key, atol in (("next_m", 1e-6), ("next_v", 1e-9)):
            found = picked(document["state"][n][key], 8)
            wanted = arrays[f"{name}/{key}"][n]
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=atol, err_msg=order[n])


def picked(values: Tensor, count: int) -> np.ndarray:
    """Numbers at places spread over a tensor, filled up with NaN."""
    flat = values.float().flatten().numpy()
    found = flat[np.unique(np.linspace(0, len(flat) - 1, count).astype(int))]
    return np.pad(found, (0, count - len(found)), constant_values=np.nan)


@pytest.mark.parametrize("case", ["meanP_f0", "seqTransf_f0", "tightTransf_f0"])
def test_groups_are_the_reference_s(case: str) -> None:
    arrays = golden("finetune")
    config = json.loads(str(arrays[f"{case}/config"]))
    settings = TrainSettings(
        lr=config["lr"], coef_lr=config["coef_lr"], weight_decay=0.2, epochs=config["epochs"]
    )
    names = arrays[f"{case}/names"].tolist()
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in _groups(names, settings, total=config["t_total"])
        for name in group["params"]
    }
    rates, decays = arrays[f"{case}/group_lr"], arrays[f"{case}/group_decay"]
    for name, rate, decay in zip(names, rates, decays, strict=True):
        assert found[name] == pytest.approx((rate, decay)), name


def test_what_the_reference_cannot_hold_is_refused(tmp_path: Path) -> None:
    choice = parse_head("xpool")
    head: Head = build_head(choice, dim=64, clip=None, seed=0)
    spec = ModelSpec(choice.label, 64, TextSpec("frozen", 64, 64))
    write_run(tmp_path / "run", RetrievalModel(FrozenText(), head), spec, config={})
    with pytest.raises(ConfigError, match=r"no head 'xpool'; its heads are meanP"):
        run_app("export", "--run", tmp_path / "run", "--out", tmp_path / "out", "--reference")
    assert not (tmp_path / "out").exists()


def test_a_model_that_its_code_would_run_otherwise_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")  # on the shipped model: 3 heads of 32
    done = run_app("export", "--run", run, "--out", tmp_path / "out", "--reference")
    assert "computes otherwise with these weights: vision: 3 attention heads" in done.stderr
    assert "no pytorch_opt.bin" in done.stderr

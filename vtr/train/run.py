"""The run folder: what a training leaves behind, and reading it back.

config.json         everything resolved: model, text side, features, data, settings, versions
train_ids.txt       ids of all videos trained on, one a line, sorted
best.safetensors    weights of the best epoch
towers/             where the vision tower was trained: both towers of the best epoch, a Hugging
                    Face folder; config.json has their weights_sha256 under "towers"
last.safetensors    weights, optimiser and progress after the last whole epoch, to resume from
metrics.jsonl       one line per epoch
curve.png           loss and recall over the epochs
training.json       which epoch is best, how it was chosen, what it scores
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.clip.openai_names import require_keys
from vtr.errors import CheckpointError, ConfigError, ModelError, StoreWriteError
from vtr.features.store import FeatureStore
from vtr.files import UNFINISHED, is_begun, make_folder, open_shared, publish
from vtr.json_files import as_fields, read_json
from vtr.progress import note
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.text_tower import TextSpec

SCHEMA = 1
CONFIG = "config.json"
TRAIN_IDS = "train_ids.txt"
BEST = "best.safetensors"
LAST = "last.safetensors"
METRICS = "metrics.jsonl"
CURVE = "curve.png"
TOWERS = "towers"
OUTCOME = "training.json"
_OF_OUTCOME = {"best_epoch", "epochs", "stopped_early", "selection", "metrics", "events", "seconds"}
OUTCOME_ONCE = "result.json"  # of runs before #13; below eval/ it is another document

MODEL_PREFIX = "model."


@dataclass(frozen=True)
class Run:
    """A finished or interrupted training.

    >>> import vtr
    >>> run = vtr.load_run("demo-world/runs/meanP")
    >>> run.spec.head, run.sampler
    ('meanP', 'uniform')
    """

    folder: Path  # Where it lies
    config: Mapping[str, Any]  # `config.json`
    spec: ModelSpec  # What the model is
    model: RetrievalModel  # In evaluation mode
    # Videos trained on; None where nobody knows (imported weights).
    train_ids: frozenset[str] | None
    epoch: int  # Whose weights these are; 0 is before any training
    # The model of its own to embed with, where the vision tower was trained: stored features of
    # other weights are stale.
    towers: Path | None = None

    def __repr__(self) -> str:
        """What and where; not the thousands of videos it was trained on."""
        return f"<Run {self.spec.head}, {self.trained}, epoch {self.epoch}, in {self.folder}>"

    @property
    def trained(self) -> str:
        """What was trained beside the head: the mode of the text side, or "towers"."""
        return self.spec.text.mode if self.towers is None else TOWERS

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def sampler(self) -> str | None:
        """Whose frames it was trained on; None where that is not known."""
        return self._known("features", "sampler")

    @property
    def features_folder(self) -> Path | None:
        """The store it was trained on; None where that is not known."""
        found = self._known("features", "folder")
        return None if found is None else Path(found).resolve()

    @property
    def text_model(self) -> str:
        """Hub id or folder of the backbone whose text tower it needs; one that it brings first."""
        try:
            named = str(self.config["text_model"]["id"])
        except (KeyError, TypeError):
            raise ConfigError(f"{self.folder / CONFIG} names no text_model") from None
        own = self.folder / named
        return str(own) if is_local(self.config["text_model"]) and own.is_dir() else named

    @property
    def lacks_text_model(self) -> bool:
        """Whether its text model was a folder of the machine it was trained on, and is not here."""
        return is_local(self.section("text_model")) and not Path(self.text_model).is_dir()

    @property
    def own_towers(self) -> str | None:
        """Folder of the towers that its training changed, here or where it was imported from."""
        if self.towers is not None:
            return str(self.towers)
        ours = self.config.get("imported") and self.text_sha256 == self.weights_sha256
        return self.text_model if ours and self.weights_sha256 else None

    @property
    def text_sha256(self) -> str | None:
        """Of the weights of its text model; None where that is not known."""
        return self._known("text_model", "weights_sha256")

    @property
    def weights_sha256(self) -> str | None:
        """Of the vision tower whose features it reads; None where that is not known."""
        return self._known("features", "weights_sha256")

    @property
    def selection(self) -> str:
        """How the best epoch was chosen."""
        return str(self.config.get("selection", "unknown"))

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.section("settings").get("seed", 0))

    def section(self, name: str) -> Mapping[str, Any]:
        """Returns an object of `config.json`; an empty one where it is not there."""
        found: Mapping[str, Any] = self.config.get(name) or {}
        return found

    def _known(self, section: str, name: str) -> str | None:
        found = self.section(section).get(name)
        return None if found is None else str(found)

    def check_store(self, store: FeatureStore) -> None:
        """Refuses features that this model was not trained on the like of (ModelError)."""
        spec, ours = store.spec, self.section("features")
        if spec.embedding_dim != self.spec.dim:
            raise ModelError(
                f"{self.folder} was trained on features of {self.spec.dim} dimensions, "
                f"{store.folder} holds {spec.embedding_dim}"
            )
        trained = self.weights_sha256
        if trained is not None and trained != spec.weights_sha256:
            raise ModelError(
                f"{self.folder} was trained on features of {ours.get('backbone')} "
                f"(weights {trained[:12]}), {store.folder} holds those of {spec.backbone} "
                f"(weights {spec.weights_sha256[:12]}): name the right store with --features"
            )
        require_same_settings(
            ours.get("vision") or {},
            spec.vision,
            what=f"{self.folder} was trained on features made with",
            other=f"those of {store.folder} with",
        )

    def check_text_model(self, backbone: Backbone) -> None:
        """Refuses texts that this model was not trained with the like of (ModelError)."""
        wanted, text = self.text_sha256, self.section("text_model")
        if self.towers is not None and wanted != backbone.weights_sha256:
            raise CheckpointError(_lost(self.towers, "holds other weights than this run wrote"))
        if wanted not in (None, backbone.weights_sha256):
            raise ModelError(
                f"{self.folder} was trained with the text of weights {str(wanted)[:12]}; "
                f"{self.text_model} now has {backbone.weights_sha256[:12]}"
            )
        require_same_settings(
            settings if isinstance(settings := text.get("settings"), dict) else {},
            backbone.text_settings,
            what=f"{self.folder} was trained with text made with",
            other=f"that of {self.text_model} with",
        )


def is_local(text: Mapping[str, Any]) -> bool:
    """Returns whether a text model, as config.json names it, is a folder of some machine."""
    return text.get("revision") == "local" or Path(str(text.get("id", ""))).is_absolute()


def require_same_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], *, what: str, other: str
) -> None:
    """Refuses one set of weights run in two ways, such as with two activations."""
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise ModelError(
                f"{what} {name} {before[name]!r}, {other} {now[name]!r}: the same weights "
                "then give other numbers. Restore the model's config.json, or make features and "
                "run anew"
            )


def start_run(folder: Path, *, config: Mapping[str, Any], train_ids: Iterable[str] | None) -> None:
    """Makes the folder and writes what is known before training; no `train_ids` means unknown."""
    make_folder(folder, option="--runs")
    if train_ids is not None:
        ids = "".join(f"{video_id}\n" for video_id in sorted(set(train_ids)))
        publish(folder / TRAIN_IDS, ids.encode("utf-8", "surrogatepass"))
    write_json(folder / CONFIG, {"schema": SCHEMA, **config, "started": time.time()})


def write_run(
    folder: Path,
    model: RetrievalModel,
    spec: ModelSpec,
    *,
    config: Mapping[str, Any],
    train_ids: Iterable[str] | None = None,
) -> None:
    """Writes a run that was trained elsewhere (an importer), so that `load_run` reads it.

    `spec` is added to the config under "model". `load_run` reads "text_model" ({"id": hub id or
    folder}), "features" ({"sampler", "backbone", "weights_sha256"}), "settings" ({"seed"}) and
    "selection", each where it is there.
    """
    start_run(folder, config={**config, "model": asdict(spec)}, train_ids=train_ids)
    save_model(folder / BEST, model, {"epoch": "0"})


def list_runs(runs: Path) -> list[Path]:
    """Returns the folders of all runs in a folder; one whose first version is unfinished too."""
    begun = {runs / path.parent.name for path in (runs / UNFINISHED).glob(f"*/{CONFIG}")}
    whole = {path.parent for path in runs.glob(f"*/{CONFIG}")}
    return sorted(whole | {folder for folder in begun if is_begun(folder)})


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Returns what a finished training wrote; None of one that has not finished."""
    path = _find_outcome(folder)
    if path is None:
        return None
    document = read_json(path, needed="the outcome of a training")
    if missing := sorted(_OF_OUTCOME - document.keys()):
        raise ConfigError(
            f"{path} lacks {missing[0]!r}, which a training writes there: restore it, or train "
            "again with --overwrite"
        )
    return document


def is_unfinished(folder: Path) -> bool:
    """Returns whether a training has begun there and has not come to its end."""
    return (folder / LAST).is_file() and _find_outcome(folder) is None


def _find_outcome(folder: Path) -> Path | None:
    return next((p for p in (folder / OUTCOME, folder / OUTCOME_ONCE) if p.exists()), None)


def next_number(runs: Path) -> int:
    """Returns a number above those of all runs there: the later at work, the higher, by no clock.

    Two that begin in the same moment get the same one; `recency` then goes by their clocks.
    """
    whole, begun = runs.glob(f"*/{CONFIG}"), (runs / UNFINISHED).glob(f"*/{CONFIG}")
    return 1 + max((recency(path.parent)[0] for path in (*whole, *begun)), default=0)


def recency(folder: Path) -> tuple[int, float, str]:
    """Returns by what runs are ordered, the latest last, as their config.json records it.

    Dates of files change with every copy. They order only runs that vtr wrote before it numbered
    them, and one of tomorrow counts as none.
    """
    try:
        config = read_config(folder)
        dated = (folder / CONFIG).stat().st_mtime
    except (ConfigError, OSError):
        return 0, 0.0, folder.name
    number, started = config.get("number"), config.get("started")
    if type(number) is not int or number < 1:
        return 0, dated if dated <= time.time() else 0.0, folder.name
    return number, float(started) if isinstance(started, int | float) else 0.0, folder.name


def renumber_run(folder: Path, number: int) -> None:
    """Makes a run that goes on the latest one; towers of its best epoch are those of its end."""
    config = {name: value for name, value in read_config(folder).items() if name != "towers"}
    write_json(folder / CONFIG, {**config, "number": number, "started": time.time()})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Publishes a JSON document."""
    publish(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file."""
    try:
        with open_shared(path, append=True) as file:
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise StoreWriteError(_refused("write", path, error)) from None


def remove_files(folder: Path, *names: str) -> None:
    """Removes files of a run, where they are there."""
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreWriteError(_refused("remove", folder / name, error)) from None


def _refused(what: str, path: Path, error: OSError) -> str:
    return (
        f"cannot {what} {path}: {error.strerror or error}. Free some space, or choose another "
        "folder with --runs"
    )


def save_model(path: Path, model: RetrievalModel, metadata: Mapping[str, str]) -> None:
    """Publishes the weights of a model."""
    publish(path, save_tensors(model_tensors(model), metadata=dict(metadata)))


def model_tensors(model: RetrievalModel) -> dict[str, Tensor]:
    """Returns the weights on the CPU, none sharing memory, under "model." names."""
    return {
        MODEL_PREFIX + name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }


_SECTIONS = (
    "data",
    "features",
    "imported",
    "request",
    "settings",
    "teacher",
    "text_model",
    "towers",
)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns `config.json` of a run."""
    path = folder / CONFIG
    if not path.exists():
        raise ConfigError(_no_run(folder))
    config = read_json(path, needed="the configuration of a run")
    if config.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path} has schema {config.get('schema')!r}; this vtr reads schema {SCHEMA}"
        )
    for name in _SECTIONS:
        if not isinstance(config.get(name), dict | None):
            raise ConfigError(f"{path}: {name} is {config[name]!r:.80}; allowed: an object")
    seed = (config.get("settings") or {}).get("seed", 0)
    if type(seed) is not int:
        raise ConfigError(f"{path}: settings.seed is {seed!r:.80}; allowed: a whole number")
    return config


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        names = [path.name for path in list_runs(folder.parent)]
        there = f" Runs in {folder.parent}: {', '.join(names)}" if names else ""
        return f"no run {folder}: there is no such folder.{there}"
    inside = [str(path) for path in list_runs(folder) if (path / BEST).is_file()]
    there = f"In it are: {', '.join(inside)}" if inside else "`vtr train` makes one"
    return f"{folder} is not a run: it holds no {CONFIG}. {there}"


def load_run(folder: str | Path, *, last: bool = False, device: torch.device | str = "cpu") -> Run:
    """Returns a run with its model.

    >>> import vtr
    >>> vtr.load_run("demo-world/runs/meanP")
    <Run meanP, projection, epoch ...>

    Args:
        folder: Of the run.
        last: The weights after the last epoch and not those of the best one; of a run with towers
            those of the head beside the best epoch's towers.
        device: Where the model shall be.

    Raises:
        ConfigError: No run there.
        CheckpointError: The weights are missing, damaged, or do not fit config.json.
    """
    place = Path(folder)
    config = read_config(place)
    spec = as_fields(ModelSpec, config.get("model"), source=f"{place / CONFIG}: model")
    tensors, metadata = read_tensors(place / (LAST if last else BEST))
    if is_unfinished(place):
        note(f"{place} has not finished training: this is what it has come to so far")
    towers = None
    if spec.vision is not None:
        towers, config = place / TOWERS, _with_towers(place, config)
        if not towers.is_dir():
            raise CheckpointError(_lost(towers, "is not there: the towers that this run trained"))
        spec, tensors = _beside_towers(spec, tensors)
    model = build_model(spec)
    load_weights(model, tensors, what=str(place))
    epoch = metadata.get("epoch", "0")
    if not epoch.isdecimal():
        raise CheckpointError(f"{place}: the epoch of the weights is {epoch!r:.80}; train again")
    known = _read_ids(place / TRAIN_IDS)
    return Run(place, config, spec, model.to(device), known, int(epoch), towers)


def _lost(towers: Path, what: str) -> str:
    return f"{towers} {what}. Copy the run's folder again, or train again with --overwrite"


def _with_towers(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration as of a head trained on features of the run's own towers."""
    digest = (config.get("towers") or {}).get("weights_sha256")
    if digest is None:
        raise ConfigError(
            f"{folder} trains its vision tower and has not finished: its towers are written at the "
            f"end. Go on with vtr train --resume --name {folder.name} --runs {folder.parent}"
        )
    text, own = config.get("text_model") or {}, str((folder / TOWERS).resolve())
    own_text = {"id": own, "base": text.get("id"), "weights_sha256": digest}
    own_features = {"backbone": TOWERS, "weights_sha256": digest}
    return {
        **config,
        "text_model": {**text, **own_text},
        "features": {**(config.get("features") or {}), **own_features},
    }


def _beside_towers(
    spec: ModelSpec, tensors: Mapping[str, Tensor]
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Returns what of a model is not in its towers: the head, the scale, a projection of texts."""
    gone = [f"{MODEL_PREFIX}vision."]
    text = spec.text
    if text.mode == "tune":
        gone.append(f"{MODEL_PREFIX}text_tower.")
        text = TextSpec("frozen", text.text_dim, text.video_dim)
    kept = {n: value for n, value in tensors.items() if not n.startswith(tuple(gone))}
    return replace(spec, vision=None, text=text, lora=0), kept


def _read_ids(path: Path) -> frozenset[str] | None:
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8", errors="surrogatepass")
    except ValueError as error:
        raise ModelError(
            f"{path} is damaged ({error}). It says which videos the run was trained on; without it "
            "vtr cannot refuse to test on them. Train again, or restore the file"
        ) from None
    return frozenset(text.split("\n")) - {""}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        begun = path.name != LAST and (path.parent / LAST).exists()
        why = "" if begun else "the run was stopped before its first epoch, or "
        go_on = "Restore it" if begun else "Go on with vtr train --resume"
        raise CheckpointError(
            f"{path} does not exist: {why}the file was removed. {go_on}, or train it anew with "
            "--overwrite"
        ) from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. The file is damaged or cut off: copy it again, or "
            "train again with --overwrite"
        ) from None


def load_weights(model: RetrievalModel, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Puts the "model." tensors of a checkpoint into a model, all of them and no others."""
    given = {
        name.removeprefix(MODEL_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(MODEL_PREFIX)
    }
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    require_keys(given, wanted, what=f"{CONFIG} of {what}")
    model.load_state_dict(given)

"""Finds a model: a local folder, or a repository of the Hugging Face hub and its local cache."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.clip.models import known_models, nearest_name, resolve_model
from vtr.errors import CheckpointError, HubOfflineError, ModelError, ModelNotFoundError
from vtr.foreign import first_few, first_line
from vtr.json_files import read_json
from vtr.remote import as_path

EXAMPLE = "openai/clip-vit-base-patch32"

TOKENISER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
OPEN_CLIP_CONFIG = "open_clip_config.json"
_Kind = tuple[str, str, str]
SMALL_FILES = ("config.json", OPEN_CLIP_CONFIG, *PROCESSOR_FILES, *TOKENISER_FILES)
"""All that a model's folder holds beside its weights."""


def _names(stem: str, suffix: str) -> _Kind:
    return f"{stem}.{suffix}", f"{stem}-*.{suffix}", f"{stem}.{suffix}.index.json"


_TRANSFORMERS = (_names("model", "safetensors"), _names("pytorch_model", "bin"))
_OPEN_CLIP = (
    _names("open_clip_model", "safetensors"),
    *(
        _names(f"open_clip_{stem}", end)
        for stem in ("pytorch_model", "model")
        for end in ("bin", "pt")
    ),
)

_OPENAI = {
    "vit-b-32": "openai/clip-vit-base-patch32",
    "vit-b-16": "openai/clip-vit-base-patch16",
    "vit-l-14": "openai/clip-vit-large-patch14",
    "vit-l-14-336": "openai/clip-vit-large-patch14-336",
}
_LAION = {
    "vit-b-32": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "vit-b-16": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "vit-l-14": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "vit-h-14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "vit-g-14": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    "vit-bigg-14": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
_DATACOMP = {name: f"laion/CLIP-ViT-{name[4:].upper()}-DataComp.XL-s13B-b90K" for name in _OPENAI}
_WEIGHTS = {"": _LAION | _OPENAI, "openai": _OPENAI, "laion": _LAION, "datacomp": _DATACOMP}
_SIGLIP = re.compile(
    r"vit-(?P<size>b|l|so400m|gopt)-(?P<patch>\d\d)-(?P<kind>siglip2?)(-(?P<side>\d{3}))?"
)
# Meta's own files, and open_clip's names: what is read is open_clip's copy.
_PERCEPTION = re.compile(r"(facebook/)?pe-core-(?P<size>[tsblg]|bigg)-?1[46](-\d{3})?(-(meta|fb))?")
_PERCEPTION_SIZES = {
    "t": "T-16-384", "s": "S-16-384", "b": "B-16", "l": "L-14-336", "g": "bigG-14-448",
    "bigg": "bigG-14-448",
}  # fmt: skip
_SIZES = {"b": "base", "l": "large", "so400m": "so400m", "gopt": "giant-opt"}
_SIDES = {"l": "256", "gopt": "256"}  # where a name has no size; 224 for the others
_OWNERS = {"clip-vit-": "openai", "siglip": "google"}

# One look at the hub; the library itself would wait for ever behind a firewall that drops packets.
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ModelFolder:
    """A model on this disk."""

    model_id: str  # The hub id, or the folder's own name
    path: Path  # Where it lies
    revision: str  # The commit on the hub, or "local"


def find_model(model: str) -> ModelFolder:
    """Returns the folder of a model, downloading it if need be.

    Only what is needed is fetched: configuration, tokeniser, and the weights once (safetensors,
    else `.bin`). Without network a copy in the cache is used.

    Args:
        model: A local folder, a hub id ("openai/clip-vit-base-patch32") or a short name
            ("pe-core-b16").

    Raises:
        ModelNotFoundError: Neither a folder nor a repository.
        HubOfflineError: Not in the cache, and the hub cannot be reached.
        CheckpointError: A folder without configuration or weights.
        ModelError: The repository is gated.
    """
    model = resolve_model(model)
    if folder := _local(model):
        result = ModelFolder(folder.name, folder, "local")
    else:
        path = _find_on_hub(model)
        result = ModelFolder(model, path, path.name)
    _check_contents(result)
    return result


def _local(model: str) -> Path | None:
    folder = as_path(model)
    return folder.resolve() if model and folder.is_dir() else None


def find_tokeniser(model: str) -> Path:
    """Returns a folder with a model's tokeniser files; of a hub repository it fetches no others."""
    model = resolve_model(model)
    folder = _local(model) or _find_on_hub(model, tokeniser_only=True)
    if not has_vocabulary(folder):
        raise CheckpointError(
            f"{folder} has no vocabulary (tokenizer.json, or vocab.json and merges.txt)"
        )
    return folder.resolve()


def has_vocabulary(folder: Path) -> bool:
    """Returns whether a folder holds a tokeniser of either kind."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
    whole, words, pieces, merges = ((folder / name).is_file() for name in names)
    return whole or words or (pieces and merges)


def require_model(model: str) -> None:
    """Raises what `find_model` would, without fetching weights: of a hub's model the tokeniser.

    What the cache holds is not asked of the hub again.
    """
    model = resolve_model(model)
    if _local(model):
        find_model(model)
        return
    check_model_name(model)
    try:
        _find_in_cache(model, "not asked", tokeniser_only=True)
    except (HubOfflineError, ValueError):  # HFValidationError among them
        find_tokeniser(model)


def weight_files(folder: Path) -> list[Path]:
    """Returns a folder's weight files: one or what an index names, safetensors before `.bin`."""
    return _first_weights(folder, _OPEN_CLIP if is_open_clip(folder) else _TRANSFORMERS)


def _first_weights(folder: Path, kinds: Sequence[_Kind]) -> list[Path]:
    for whole, _, index in kinds:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            return _indexed(folder / index)
    return []


def read_if_there(path: Path, *, needed: str) -> dict[str, Any]:
    """Returns the JSON object in a file of a model, nothing where there is no such file."""
    return read_json(path, needed=needed, error=CheckpointError) if path.is_file() else {}


def is_open_clip(folder: Path, names: Collection[str] = ()) -> bool:
    """Returns whether open_clip's files are what is read of a folder.

    A repository may hold a model twice, and the picture tower alone for timm, whose config.json
    names no model_type: transformers' copy is taken where there is one. `names` are all its files,
    where not all of them lie there yet.
    """
    with suppress(OSError):  # what it lacks is said elsewhere
        names = names or {path.name for path in folder.iterdir()}
    if OPEN_CLIP_CONFIG not in names:
        return False
    if "config.json" not in names or not _first_kind(names, _TRANSFORMERS):
        return True
    needed = "a transformers model"
    return "model_type" not in read_json(
        folder / "config.json", needed=needed, error=CheckpointError
    )


def _first_kind(names: Collection[str], kinds: Sequence[_Kind]) -> _Kind | None:
    """Returns the best kind of weights among the names of files."""
    return next((kind for kind in kinds if kind[0] in names or kind[2] in names), None)


def _indexed(index: Path) -> list[Path]:
    needed = "an index of weight files"
    shards = read_json(index, needed=needed, error=CheckpointError).get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) else set()
    if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
        raise CheckpointError(f"{index} has no weight_map of names to files; needed: {needed}")
    files = [index.parent / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{index} names {file.name}, which is not beside it. Fetch the folder again"
            )
    return files


def _check_contents(model: ModelFolder) -> None:
    lacking = []
    foreign = is_open_clip(model.path)
    kinds = _OPEN_CLIP if foreign else _TRANSFORMERS
    if not foreign and not (model.path / "config.json").is_file():
        there = {path.name for path in model.path.iterdir()}
        if _first_kind(there, _OPEN_CLIP) and not _first_kind(there, kinds):
            kinds = _OPEN_CLIP
        lacking.append(OPEN_CLIP_CONFIG if kinds is _OPEN_CLIP else "config.json")
    if not _first_weights(model.path, kinds):
        lacking.append(f"{kinds[0][0]} (or {kinds[1][0]})")
    if lacking:
        held = sorted(path.name for path in model.path.iterdir()) or ["nothing"]
        raise CheckpointError(
            f"{model.model_id}: {model.path} has no {' and no '.join(lacking)}. A model folder is "
            f"what save_pretrained writes, or what `hf download {EXAMPLE}` fetches; this one holds "
            f"{first_few(held, 5)}"
        )


def _find_on_hub(model: str, *, tokeniser_only: bool = False) -> Path:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    check_model_name(model)
    try:
        return _download(model, tokeniser_only=tokeniser_only)
    except HFValidationError:
        raise ModelNotFoundError(_not_found(model, "and it is not a valid hub id")) from None
    except GatedRepoError:
        raise ModelError(
            f"{model} is gated: accept its terms at https://huggingface.co/{model}, then log in "
            "with `hf auth login` (or set HF_TOKEN) and try again"
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            _not_found(model, "and the hub has no such public repository (private: hf auth login)")
        ) from None
    except (transport_error(), ConnectionError, LocalEntryNotFoundError) as error:
        return _find_in_cache(model, first_line(error), tokeniser_only=tokeniser_only)
    except OSError as error:
        raise ModelError(f"cannot store {model} in the hub's cache: {error}") from None


def transport_error() -> type[Exception]:
    """The base of every error of the HTTP library, whichever one the hub's is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    found: type[Exception] = HfHubHTTPError.__bases__[0]
    return found


def check_model_name(model: str) -> None:
    """Refuses what can be neither a folder here nor a hub id, without asking the hub."""
    if _local(model):
        return
    if as_path(model).is_file():
        raise CheckpointError(
            f"{model} is a file; give the folder that holds config.json and the weights. "
            "OpenAI's own files are made into such a folder by `vtr import openai`"
        )
    if model.lower() in known_models():
        return
    suggested = hub_name(model)
    if suggested is not None and suggested.lower() != model.lower():
        raise ModelNotFoundError(f"no model {model!r} on the hub. Did you mean {suggested!r}?")
    if "/" not in model and (near := nearest_name(model)):
        raise ModelNotFoundError(
            f"no model {model!r}: no such folder, and no short name of a model. Did you mean "
            f"{near!r} ({known_models()[near].hub})? `vtr models` lists them"
        )
    if re.match(r"(openai/)?RN\d", model):
        raise ModelNotFoundError(_not_found(model, "and CLIPs with a ResNet are not read"))
    looks_like_path = model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model
    if looks_like_path or not model:
        raise ModelNotFoundError(_not_found(model, "and it does not read like a hub id"))


def _not_found(model: str, why: str) -> str:
    return (
        f"no model {model!r}: there is no such folder, {why}. "
        f"Write OWNER/NAME for the hub, such as {EXAMPLE}, or the path of a local folder"
    )


def _download(model: str, *, tokeniser_only: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(model, timeout=_TIMEOUT_SECONDS)
    names = {file.rfilename for file in info.siblings or []}
    patterns = list(TOKENISER_FILES if tokeniser_only else SMALL_FILES)
    with nullcontext() if sys.stderr.isatty() else without_bars():
        folder = Path(snapshot_download(model, allow_patterns=patterns))
        if tokeniser_only:
            return folder
        kinds = _OPEN_CLIP if is_open_clip(folder, names) else _TRANSFORMERS
        weights = _first_kind(names, kinds)
        if weights is None:
            return folder
        return Path(snapshot_download(model, allow_patterns=[*patterns, *weights]))


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps the hub's library from drawing progress bars."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _find_in_cache(model: str, reason: str, *, tokeniser_only: bool) -> Path:
    """The newest copy in the local cache, which is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        patterns = list(TOKENISER_FILES if tokeniser_only else ("config.json", OPEN_CLIP_CONFIG))
        small = Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        cached = False
    else:
        cached = has_vocabulary(small) if tokeniser_only else bool(weight_files(small))
    if not cached:
        raise HubOfflineError(
            f"{model} is not in the local cache and the Hugging Face hub cannot be reached "
            f"({reason}). On a machine with network run `hf download {model}` and copy its cache "
            "folder here (HF_HOME says where it is), or give the path of a local folder"
        ) from None
    return small


def hub_name(name: str) -> str | None:
    """Returns the hub id of a model that OpenAI's package or open_clip calls so, or None.

    >>> hub_name("ViT-B/32"), hub_name("ViT-H-14 laion2b_s32b_b79k")
    ('openai/clip-vit-base-patch32', 'laion/CLIP-ViT-H-14-laion2B-s32B-b79K')
    >>> hub_name("ViT-B-16-SigLIP-384"), hub_name("openai/clip-vit-base-patch32")
    ('google/siglip-base-patch16-384', 'openai/clip-vit-base-patch32')
    """
    asked, name = name, re.sub(r"^(hf-hub|hf|open_clip|timm):/*", "", name.strip())
    match = _PERCEPTION.fullmatch(name.lower())
    if match is not None:
        return f"timm/PE-Core-{_PERCEPTION_SIZES[match['size']]}"
    plain = re.sub(r"^(openai|laion|google|clip)[:/]+", "", name.lower())
    listed = [*_OPENAI.values(), *_LAION.values(), *_DATACOMP.values()]
    same = [known for known in listed if plain == known.partition("/")[2].lower()]
    start = next((start for start in _OWNERS if plain.startswith(start)), None)
    if same or (start and "patch" in plain):
        return same[0] if same else f"{_OWNERS[str(start)]}/{plain}"
    words = re.sub(r"[\s,:@]+|/(?!\d)", " ", plain).replace("_", "-").split()
    model, weights = "-".join(re.split(r"[/-]", words[0])) if words else "", " ".join(words[1:])
    if weights in ("336px", "336"):
        model, weights = f"{model}-336", ""
    model = model.removesuffix("px").replace("-quickgelu", "")
    match = _SIGLIP.fullmatch(model)
    if match is not None:
        side = match["side"] or _SIDES.get(match["size"], "224")
        side = "384" if side == "378" else side  # the hub's name of the same weights
        return f"google/{match['kind']}-{_SIZES[match['size']]}-patch{match['patch']}-{side}"
    known = next((_WEIGHTS[key] for key in _WEIGHTS if key and weights.startswith(key)), None)
    listed_as = (_WEIGHTS[""] if not weights else known or {}).get(model)
    return listed_as or (name if name != asked and name.count("/") == 1 else None)

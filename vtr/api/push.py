"""`vtr push`: a run as a model, or a store as a data set, to the Hugging Face hub.

What goes up is decided and said before the hub is asked anything; done is what the hub lists with
the digests of what is here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vtr.api.hub import (
    CARD,
    MANIFEST,
    HubFile,
    Kind,
    Manifest,
    Repository,
    make_manifest,
    split_name,
)
from vtr.api.hub_talk import require_token
from vtr.counts import counted, human_bytes
from vtr.errors import ConfigError, HubError
from vtr.features.engine_check import PREFIX as CHECKS
from vtr.features.shard import ShardName, list_shards
from vtr.features.store import FeatureStore
from vtr.files import file_sha256
from vtr.foreign import first_few, printable
from vtr.json_files import read_json
from vtr.pages import render
from vtr.progress import note, progress
from vtr.remote import as_path
from vtr.result_schema import RESULT_FILE
from vtr.settings import takes
from vtr.verbs.push import Options
from vtr.workspace import workspace_here

if TYPE_CHECKING:
    from vtr.train.run import Run

_MOST_FILES, _MOST_BYTES = 100, 2 << 30  # of one commit
_OURS = frozenset({CARD, MANIFEST, ".gitattributes", "LICENSE", ".gitignore"})
"""What a repository may hold without being somebody's work."""
_PATH = re.compile(r"(?<![\w.~/:])(?:~|/)(?:[^\s/'\",;:()]+/)+([^\s/'\",;:()]*)")
_GIVEN = (".json", ".txt", ".safetensors")
MODEL_FOLDER = "model"


class Parcel(NamedTuple):
    """What goes up."""

    kind: Kind
    name: str
    identity: str  # see `Manifest`
    files: Mapping[str, Path | bytes]  # by their names in the repository
    digests: Mapping[str, tuple[str, int]]  # SHA-256 and bytes of each
    card: bytes

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: size for name, (_, size) in self.digests.items()}


class Push(NamedTuple):
    """What a push did."""

    kind: Kind
    repository: str  # OWNER/NAME
    files: dict[str, int]  # bytes of each, without the card and the manifest
    sent: list[str]  # names; what the hub had is not among them
    deleted: list[str]
    commit: str | None  # None of a dry run
    url: str | None  # of the page that shows this commit


@takes(Options)
def push(target: str | Path, repo: str, **options: Any) -> Push:
    """Pushes a run or a store to the Hugging Face hub and proves what arrived; `vtr push`.

    >>> import vtr
    >>> told = vtr.push("demo-world/runs/meanP", "me/meanP", dry_run=True)
    >>> told.kind, "best.safetensors" in told.files, told.commit
    ('run', True, None)

    Args:
        target: Folder of a run or of a store; a run of the workspace also by its name.
        repo: OWNER/NAME; without an owner it is whose token it is.
        options: The fields of `vtr.verbs.push.Options`: `private=True`, `revision="v2"`,
            `results=True`, `dry_run=True`, ...

    Raises:
        ConfigError: Neither a run nor a store, or no name of a repository.
        HubError: The hub refuses, or the repository holds something else.
        HubOfflineError: It cannot be reached.
    """
    asked = Options.of(**options)
    name, said = split_name(repo)
    parcel = pack(target, name, asked)
    if said not in (None, parcel.kind):
        raise ConfigError(f"{repo} is the name of a {said}, and {target} is a {parcel.kind}")
    _tell(parcel, name, asked)
    if not asked.dry_run:
        return _send(parcel, name, asked)
    return Push(parcel.kind, name, parcel.sizes, [], [], None, None)


# ---- what goes up


def pack(target: str | Path, repo: str, options: Options) -> Parcel:
    """Returns what of a folder goes up."""
    if not isinstance(target, str | Path):
        raise ConfigError(f"target is {target!r:.60}; it must be the folder of a run or a store")
    folder = as_path(str(target))
    if folder.is_dir() and list_shards(folder)[0]:
        if options.results or options.with_model:
            raise ConfigError(f"{folder} is a store; --results and --with-model are for runs")
        return _pack_store(folder, repo)
    from vtr.train.run_folders import find_run

    folder = find_run(workspace_here().runs, folder)
    if not (folder / "config.json").is_file():
        what = "is a file" if folder.is_file() else "does not exist"
        what = "holds neither a run nor shards" if folder.is_dir() else what
        raise ConfigError(
            f"nothing to push: {folder} {what}. Name the folder of a run (vtr train) or of a "
            "store (vtr extract)"
        )
    return _pack_run(folder, options)


def _pack_store(folder: Path, repo: str) -> Parcel:
    store = FeatureStore(folder)  # reads every byte where that was not done yet
    odd = [row.id for row in store.ledger if _PATH.search(row.error) or row.id.startswith("/")]
    if odd:
        note(
            f"warning: {counted(len(odd), 'row')} of the ledger may name folders of this machine, "
            f"such as that of {odd[0]!r}; look at vtr inspect {folder} first"
        )
    files, digests = {}, {}
    for shard in store.shards:
        files[shard.path.name] = shard.path
        digests[shard.path.name] = (shard.name.sha256, shard.num_bytes)
    for path in sorted(folder.glob(f"{CHECKS}*.json")):  # how far another engine was from float32
        files[path.name], digests[path.name] = path, _digest(path)
    name = folder.resolve().name
    return Parcel("store", name, store.fingerprint, files, digests, _data_card(store, name, repo))


def _data_card(store: FeatureStore, name: str, repo: str) -> bytes:
    """Returns the card of a store, as the hub reads data cards."""
    from huggingface_hub import DatasetCardData

    from vtr.api.inspect import describe

    spec, facts = store.spec, describe(store)
    check = facts["engine_check"]
    bounds = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    words = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
    size = words[sum(len(store) >= bound for bound in bounds)]
    front = DatasetCardData(
        license="unknown",
        pretty_name=name,
        tags=["video-text-retrieval", "video", "clip", "features"],
        size_categories=[size],
        library_name="vtr",
        viewer=False,  # it reads no HDF5
    )
    rate = "every frame" if spec.candidate_fps is None else f"{spec.candidate_fps:g} a second"
    rate += ", at uneven steps" if spec.candidate_jitter else ""
    rows = {
        "backbone": f"{spec.backbone}, revision {spec.revision}",
        "sha256 of its weights": spec.weights_sha256,
        "dimensions": f"{spec.embedding_dim}, {spec.storage_dtype}",
        "videos": f"{len(store):,} with features, {facts['failed']:,} failed",
        "frames": f"{facts['frames']:,}",
        "samplers": ", ".join(spec.samplers),
        "candidate frames": rate,
        "preprocessing": json.dumps(spec.preprocessing, sort_keys=True),
        "pictures": facts["pictures"] or "",
        "computed in": spec.compute_dtype
        if spec.engine == "torch"
        else f"{spec.compute_dtype} by {spec.engine}",
        "against float32": ", ".join(
            f"{figure.replace('_', ' ')} {check[figure]:.4f}"
            for figure in ("worst_cosine", "mean_cosine", "same_order")
            if check
        ),
        "fingerprint": store.fingerprint,
    }
    lines = map(printable, front.to_yaml().splitlines())
    shown = [(fact, str(value)) for fact, value in rows.items() if value]
    return render("data_card.md", front_matter="\n".join(lines), name=name, repo=repo, facts=shown)


def _pack_run(folder: Path, options: Options) -> Parcel:
    from vtr.api.export import read_results
    from vtr.train.card import model_card
    from vtr.train.run import BEST, CONFIG, TOWERS, TRAIN_IDS, load_run
    from vtr.train.sentences import FILES as SENTENCES

    run = load_run(folder)
    results, left_out = read_results(folder)
    config = read_json(folder / CONFIG, needed="the configuration of a run")
    places = _places(folder)
    clean = without_paths(config, places)
    own = {BEST: folder / BEST}
    if (folder / TRAIN_IDS).is_file():
        own[TRAIN_IDS] = folder / TRAIN_IDS
    for name in (TOWERS, *SENTENCES):  # what `vtr export --sentence-transformers` adds
        found = [folder / name, *(folder / name).rglob("*")]
        own |= {
            path.relative_to(folder).as_posix(): path
            for path in sorted(found)
            if path.suffix in _GIVEN and path.is_file()
        }
    if run.towers is None and Path(run.text_model).is_dir():
        clean["text_model"] |= {"revision": "local", "weights_sha256": _text_digest(run)}
    for path in own.values():
        _require_inside(path, folder)
    files: dict[str, Path | bytes] = {**own}
    if options.with_model:
        files |= _model_files(run)
        clean["text_model"]["id"] = MODEL_FOLDER
    files[CONFIG] = as_json(clean)
    if options.results:
        for path in sorted(folder.glob(f"eval/*/{RESULT_FILE}")):
            document = read_json(path, needed="a result of `vtr eval`")
            name = path.relative_to(folder).as_posix()
            files[name] = as_json(without_paths({**document, "videos": {}}, places))
    decisive = {key: config.get(key) for key in ("model", "data", "settings", "started")}
    return Parcel(
        "run",
        run.name,
        hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest(),
        files,
        {name: _digest(content) for name, content in files.items()},
        without_paths(model_card(run, results, left_out), ()).encode(),
    )


def _require_inside(path: Path, folder: Path) -> None:
    """Refuses a link that leads out of the run: what it leads to was not meant."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{path} is a link to {path.resolve()}, outside of the run, and does not go up: put a "
            "copy in its place"
        )


def _text_digest(run: Run) -> str:
    """Returns the digest of a local text model, by which who pulls the run finds it again."""
    if run.text_sha256 is not None:
        return run.text_sha256
    from vtr.clip.backbone import load_backbone

    return load_backbone(run.text_model, device="cpu").weights_sha256


def _model_files(run: Run) -> dict[str, Path | bytes]:
    """Returns the files of the text model of a run, where it is a local folder."""
    from vtr.clip.hub import SMALL_FILES, weight_files

    folder = Path(run.text_model)
    if not folder.is_dir():
        raise ConfigError(
            f"--with-model: the text model of {run.folder} is {run.text_model}, no local folder; "
            "who pulls the run gets it from the hub. Leave --with-model out"
        )
    small = [folder / name for name in SMALL_FILES]
    weights = weight_files(folder)
    if any(path.suffix != ".safetensors" for path in weights):
        raise ConfigError(
            f"--with-model: {folder} has its weights as a pickle, which vtr does not give away; "
            "save them as safetensors (save_pretrained of transformers 5 does)"
        )
    index = sorted(folder.glob("*model.safetensors.index.json"))
    found = [path for path in small if path.is_file()]
    return {f"{MODEL_FOLDER}/{path.name}": path for path in (*found, *index, *weights)}


def _digest(content: Path | bytes) -> tuple[str, int]:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    return file_sha256(content), content.stat().st_size


def as_json(document: Any) -> bytes:
    """Returns a document as the bytes of a file."""
    return f"{json.dumps(document, indent=2)}\n".encode()


def _places(folder: Path) -> Sequence[str]:
    """Returns the folders of this machine that a text may name, the longest first."""
    around = [folder.resolve(), *folder.resolve().parents, Path.cwd(), Path.home()]
    return sorted({str(place) for place in around if len(place.parts) > 2}, key=len)[::-1]


def without_paths(document: Any, places: Sequence[str]) -> Any:
    """Returns a document whose texts name no folder of this machine: of a path its last part.

    >>> without_paths({"id": "/home/me/clip", "of": "made from /data/a b/run, 3"}, ["/data/a b"])
    {'id': 'clip', 'of': 'made from run, 3'}
    """
    if isinstance(document, dict):
        return {key: without_paths(value, places) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_paths(value, places) for value in document]
    if not isinstance(document, str):
        return document
    if document.startswith(("/", "~/")) and "\n" not in document:
        return Path(document).name
    for place in places:
        document = document.replace(f"{place}/", "").replace(place, Path(place).name)
    return _PATH.sub(r"\1", document)


def _tell(parcel: Parcel, repo: str, options: Options) -> None:
    """Says what goes up, before it does."""
    total = sum(parcel.sizes.values())
    names = [*parcel.digests, CARD, MANIFEST]
    hidden = ", private where it is new" if options.private else ""
    note(
        f"{'would push' if options.dry_run else 'pushing'} the {parcel.kind} {parcel.name} to "
        f"{repo}{hidden}: {counted(len(names), 'file')}, {human_bytes(total)}: "
        f"{first_few(names, 12)}"
    )
    held = "ids of videos" if parcel.kind == "run" else "ids of videos and why some failed"
    captions = "; captions are in its results" if options.results else "; no captions, no videos"
    note(f"in them: {held}{captions}")


# ---- sending


def _send(parcel: Parcel, name: str, options: Options) -> Push:
    require_token()
    place = Repository(name, parcel.kind, "main", options.hub_url)
    if "/" not in name:
        place = Repository(f"{place.owner()}/{name}", parcel.kind, "main", options.hub_url)
    commit = _prepare(place, options)
    files = place.files(commit)
    held = place.manifest(commit, files)
    _require_ours(place, files, held, parcel)
    wanted = {**parcel.files, CARD: parcel.card}
    if held is not None and CARD in files and files[CARD].git_sha1 != held.card:
        note(f"the card of {place} was edited on the hub and stays as it is")
        del wanted[CARD]
    manifest = make_manifest(parcel.kind, parcel.identity, parcel.digests, parcel.card)
    wanted[MANIFEST] = as_json(asdict(manifest))
    changed = [key for key in wanted if not _is_there(files.get(key), wanted[key], parcel, key)]
    gone = sorted(set(held.files if held else ()) & files.keys() - parcel.files.keys())
    if changed or gone:
        commit = _transfer(place, commit, {key: wanted[key] for key in changed}, gone, parcel)
        _prove(place, commit, wanted, parcel)
    url = f"{place.url}/tree/{commit}"
    return Push(parcel.kind, place.name, parcel.sizes, changed, gone, commit, url)


def _prepare(place: Repository, options: Options) -> str:
    """Makes repository and branch where they are not there; returns the branch's commit."""
    found = place.look()
    if found is None:
        place.make(private=options.private)
        found = place.look()
        if found is None:
            raise HubError(f"{place} was made, and the hub does not know it; try again later")
    if options.private and not found[1]:
        raise HubError(
            f"{place} is there already and public: --private counts for new ones only. Make it "
            f"private in the settings of {place.url}, or choose another name"
        )
    if options.revision != "main":
        place.revision = options.revision
        place.branch()
        found = place.look() or found
    return found[0]


def _require_ours(
    place: Repository, files: Mapping[str, HubFile], held: Manifest | None, parcel: Parcel
) -> None:
    """Refuses to put a parcel over something else."""
    others = sorted(files.keys() - _OURS - parcel.files.keys())
    if held is None and others and not _is_begun(others, parcel.kind):
        raise HubError(
            f"{place} holds something that vtr did not push ({first_few(others, 3)}): choose "
            "another name"
        )
    if held is not None and held.kind != parcel.kind:
        raise HubError(f"{place} holds a {held.kind}, not a {parcel.kind}: choose another name")
    if held is None or held.identity == parcel.identity:
        return
    if parcel.kind == "store":
        raise HubError(
            f"{place} holds features made with other settings (fingerprint {held.identity[:12]}, "
            f"here {parcel.identity[:12]}): choose another name, or another branch with --revision"
        )
    note(f"{place} holds another training: this one takes its place; that stays in the history")


def _is_begun(names: Sequence[str], kind: Kind) -> bool:
    """Returns whether these are what an interrupted push of a large store left behind."""
    return kind == "store" and all(
        ShardName.parse(name) or name.startswith(CHECKS) for name in names
    )


def _is_there(file: HubFile | None, content: Path | bytes, parcel: Parcel, name: str) -> bool:
    """Returns whether the hub has a file, by the digest that it lists."""
    if file is None:
        return False
    if isinstance(content, bytes):
        return file.is_that_of(content)
    digest, size = parcel.digests[name]
    if file.size != size:
        return False
    return file.is_that_of(content.read_bytes()) if file.sha256 is None else file.sha256 == digest


def _transfer(
    place: Repository,
    commit: str,
    files: Mapping[str, Path | bytes],
    gone: Sequence[str],
    parcel: Parcel,
) -> str:
    """Sends files in several commits, the manifest with the last one; returns that."""
    batches = list(_batches(files, parcel.digests))
    message = f"Push the {parcel.kind} {parcel.name} with vtr"
    with progress("pushing") as update:
        update(0, len(files), f"0 of {counted(len(files), 'file')}")
        done = 0
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            part = f" ({number} of {len(batches)})" if len(batches) > 1 else ""
            commit = place.commit(
                batch, message=message + part, parent=commit, digests=parcel.digests,
                deleted=gone if last else (),
            )  # fmt: skip
            done += len(batch)
            update(done, len(files), "files")
    return commit


def _batches(
    files: Mapping[str, Path | bytes], digests: Mapping[str, tuple[str, int]]
) -> Iterator[dict[str, Path | bytes]]:
    """Cuts files into what one commit takes, card and manifest last."""
    batch: dict[str, Path | bytes] = {}
    size = 0
    for name, content in files.items():
        more = digests.get(name, ("", 0))[1]
        if batch and name not in _OURS and (len(batch) == _MOST_FILES or size + more > _MOST_BYTES):
            yield batch
            batch, size = {}, 0
        batch[name] = content
        size += more
    yield batch


def _prove(
    place: Repository, commit: str, wanted: Mapping[str, Path | bytes], parcel: Parcel
) -> None:
    """Compares what the hub lists with what is here."""
    files = place.files(commit)
    for name, content in wanted.items():
        if not _is_there(files.get(name), content, parcel, name):
            raise HubError(
                f"{place} lists {name} with another digest than it has here, after it was sent. "
                "Push again; if that does not help, the hub or the way there is broken"
            )

"""`vtr pull`: a run or a store from the Hugging Face hub, every file proven by its digest.

Files grow in FOLDER's neighbour `.unfinished/NAME.pull`, by the digests that they shall have, and
go into the folder when all are there: so an interrupted pull goes on, and no half of one is seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vtr.api.hub import (
    CARD,
    MANIFEST,
    PULLED,
    HubFile,
    Kind,
    Manifest,
    Repository,
    size_of,
    split_name,
)  # fmt: skip
from vtr.api.hub_talk import get_token
from vtr.counts import counted, human_bytes
from vtr.errors import ConfigError, HubError, StoreLockedError, StoreWriteError
from vtr.features.lock import write_lock
from vtr.features.shard import list_shards
from vtr.files import beside, file_sha256, make_folder, publish, replacing
from vtr.foreign import first_few
from vtr.progress import note, progress
from vtr.remote import as_path
from vtr.settings import takes
from vtr.verbs.pull import Options
from vtr.workspace import workspace_here

_KINDS: tuple[Kind, ...] = ("run", "store")
_MARGIN = 1 << 20  # bytes that a disk should have beside what is fetched
_MEGABYTE = 10**6
_SEVERAL_SECONDS = 10 * _MEGABYTE  # bytes on a slow line


@takes(Options)
def pull(repo: str, folder: str | Path | None = None, **options: Any) -> Path:
    """Pulls a run or a store from the Hugging Face hub, and returns its folder; `vtr pull`.

    >>> import vtr
    >>> try:
    ...     vtr.pull("no such name")
    ... except vtr.VtrError as error:
    ...     print(str(error).partition(":")[0])
    'no such name' is no repository

    Args:
        repo: OWNER/NAME.
        folder: To make; by default a run goes to NAME among the workspace's runs, a store to NAME
            here.
        options: The fields of `vtr.verbs.pull.Options`: `revision="v2"`, `overwrite=True`, ...

    Raises:
        ConfigError: No name of a repository, or the folder is in use.
        HubError: The hub refuses, holds something else, or sent a file with another digest: that is
            kept apart.
        HubOfflineError: It cannot be reached; what came is kept, and the next call goes on.
        StoreWriteError: The disk refused.
    """
    asked = Options.of(**options)
    name, said = split_name(repo)
    if "/" not in name:
        raise ConfigError(f"whose {name}? Name the repository as OWNER/NAME")
    if said and asked.kind and said != asked.kind:
        raise ConfigError(f"{repo} is the name of a {said}, and --kind is {asked.kind}")
    place, commit = _find(name, said or asked.kind, asked)
    files = place.files(commit)
    manifest = _manifest(place, commit, files)
    target = _target(place, folder)
    work = beside(target).with_name(f"{target.resolve().name}.pull")
    if _is_up_to_date(target, manifest, overwrite=asked.overwrite):
        note(f"{target} is what {place} holds: nothing to fetch")
        _clear(work)
        return target
    with _alone(work, target):
        _fetch_all(place, commit, manifest, work, target)
        with contextlib.ExitStack() as stack:
            if list_shards(target)[0]:
                stack.enter_context(write_lock(target, option="FOLDER"))
            if not _is_up_to_date(target, manifest, overwrite=asked.overwrite):  # others work too
                _assemble(place, commit, files, manifest, work, target)
    return target


def _find(name: str, kind: Kind | None, options: Options) -> tuple[Repository, str]:
    """Returns the repository and its commit."""
    found = []
    for one in _KINDS if kind is None else (kind,):
        place = Repository(name, one, options.revision, options.hub_url)
        if (seen := place.look()) is not None:
            found.append((place, seen[0]))
    if len(found) > 1:
        raise ConfigError(
            f"the hub has a model and a data set {name}: choose with --kind run or --kind store"
        )
    if not found:
        login = "" if get_token() else " Private ones need a token: hf auth login, or HF_TOKEN"
        what = {"run": "model", "store": "data set", None: "model and no data set"}[kind]
        raise HubError(f"the hub has no {what} {name}, or it is private and not yours.{login}")
    return found[0]


def _manifest(place: Repository, commit: str, files: Mapping[str, HubFile]) -> Manifest:
    manifest = place.manifest(commit, files)
    if manifest is None:
        there = first_few(sorted(files), 4) or "nothing"
        advice = ""
        if "config.json" in files and place.kind == "run":
            advice = f". Is it a model to embed with? Then vtr extract --model {place.name}"
        raise HubError(
            f"{place} is nothing that vtr push finished: it has no {MANIFEST} ({there}){advice}"
        )
    if manifest.kind != place.kind:
        raise HubError(f"{place} says in its {MANIFEST} that it is a {manifest.kind}, and is none")
    if lacking := sorted(manifest.files.keys() - files.keys()):
        raise HubError(
            f"{place} lacks {first_few(lacking, 3)}, which its {MANIFEST} lists: push it again, or "
            "pull an earlier commit with --revision"
        )
    return manifest


def _target(place: Repository, folder: str | Path | None) -> Path:
    if not isinstance(folder, str | Path | None):
        raise ConfigError(f"folder is {folder!r:.60}; it must be a path")
    if folder is not None:
        return as_path(str(folder))
    name = place.name.rpartition("/")[2]
    if place.kind == "store":
        return Path(name)
    return workspace_here().runs / name


def _is_up_to_date(target: Path, manifest: Manifest, *, overwrite: bool) -> bool:
    """Returns whether a folder holds it all; refuses one that holds something else."""
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; name a folder to make")
    if not target.is_dir() or not any(target.iterdir()):
        return False
    if all(_holds(target, manifest, name) for name in manifest.files):
        return True
    if not overwrite:
        raise ConfigError(
            f"{target} is in use and holds something else: name a folder that does not exist yet, "
            "or replace it with --overwrite"
        )
    return False


def _holds(folder: Path, manifest: Manifest, name: str) -> bool:
    file = folder / name
    with contextlib.suppress(OSError):
        fits = file.is_file() and file.stat().st_size == manifest.sizes[name]
        return fits and file_sha256(file) == manifest.files[name]
    return False


@contextlib.contextmanager
def _alone(work: Path, target: Path) -> Iterator[None]:
    make_folder(work, option="FOLDER")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(write_lock(work, option="FOLDER"))
        except StoreLockedError:
            raise HubError(f"another vtr pull is filling {target}: wait for it to end") from None
        yield


def _blob(work: Path, manifest: Manifest, name: str) -> Path:
    """Returns where a file grows: by its name and digest, so that another commit's is another."""
    key = f"{name}\0{manifest.files[name]}".encode()
    return work / hashlib.sha256(key).hexdigest()


def _fetch_all(
    place: Repository, commit: str, manifest: Manifest, work: Path, target: Path
) -> None:
    """Fetches what is neither in `work` nor in the folder that is to be replaced."""
    missing = []
    for name in manifest.files:
        blob = _blob(work, manifest, name)
        if blob.is_file():
            continue
        if _holds(target, manifest, name):
            _copy(target / name, blob)
        else:
            missing.append(name)
    there = sum(size_of(_part(_blob(work, manifest, name))) for name in missing)
    total = sum(manifest.sizes[name] for name in missing)
    _require_space(work, total - there, target)
    note(
        f"pulling the {manifest.kind} {place} ({commit[:12]}) to {target}: "
        f"{counted(len(missing), 'file')}, {human_bytes(total)}"
        + (f", of which {human_bytes(there)} are here" if there else "")
    )
    with progress("pulling", quiet=total < _SEVERAL_SECONDS) as update:
        done = told = 0
        for name in missing:

            def tell(size: int, before: int = done) -> None:
                nonlocal told
                if (now := (before + size) // _MEGABYTE) > told:
                    told = now
                    update(now, total // _MEGABYTE, "MB")

            _fetch(place, commit, manifest, name, _blob(work, manifest, name), tell)
            done += manifest.sizes[name]


def _fetch(
    place: Repository,
    commit: str,
    manifest: Manifest,
    name: str,
    blob: Path,
    tell: Callable[[int], None],
) -> None:
    """Fetches one file and proves its digest."""
    part, size = _part(blob), manifest.sizes[name]
    place.fetch(commit, name, part, size, tell)
    digest = file_sha256(part)
    if digest == manifest.files[name]:
        part.rename(blob)
        return
    apart = blob.with_name(f"damaged-{name.replace('/', '-')}"[:200])
    part.replace(apart)
    raise HubError(
        f"{name} of {place} is not what was pushed: its SHA-256 is {digest[:16]}..., that of the "
        f"pushed file {manifest.files[name][:16]}.... It is kept apart as {apart}; nothing was put "
        "into the folder. Pull again if the transfer is to blame; if it stays so, the file was "
        "changed on the hub: push it again, or pull an earlier commit with --revision"
    )


def _part(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.part")


def _require_space(work: Path, needed: int, target: Path) -> None:
    free = min(shutil.disk_usage(place).free for place in (work, target) if place.is_dir())
    if needed + _MARGIN > free:
        raise StoreWriteError(
            f"pulling needs {human_bytes(needed)} more, and the disk has "
            f"{human_bytes(free)} free. What was fetched is kept; free some space, or name a "
            f"folder on another disk instead of {target}"
        )


def _copy(source: Path, blob: Path) -> None:
    try:
        part = _part(blob)
        shutil.copyfile(source, part)
        part.rename(blob)
    except OSError as error:
        raise StoreWriteError(
            f"cannot copy {source.name} to {blob.parent}: {error.strerror or error}. Free some "
            "space, then run the same command again"
        ) from None


def _assemble(
    place: Repository,
    commit: str,
    files: Mapping[str, HubFile],
    manifest: Manifest,
    work: Path,
    target: Path,
) -> None:
    """Makes the folder of what was fetched."""
    small = {
        name: place.read(commit, name, files[name]) for name in (CARD, MANIFEST) if name in files
    }
    try:
        with replacing(target, option="FOLDER", over=True) as made:
            for name in manifest.files:
                make_folder((made / name).parent, option="FOLDER")
                _place(_blob(work, manifest, name), made / name)
            for name, content in small.items():
                publish(made / name, content)
            source = {"from": place.url, "commit": commit}
            publish(made / PULLED, json.dumps(source).encode())
    except OSError as error:
        raise StoreWriteError(
            f"cannot make {target}: {error.strerror or error}. Free some space, or name a folder "
            "on another disk, then run the same command again"
        ) from None
    _clear(work)


def _place(blob: Path, file: Path) -> None:
    """Gives a file its second name: a pull that is killed here finds all of them again."""
    try:
        file.hardlink_to(blob)
    except OSError:  # another disk, or one without links
        shutil.move(blob, file)


def _clear(work: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(work)
        work.parent.rmdir()  # unless others build there

"""A repository of the Hugging Face hub: its files with their digests, fetched and committed.

Files go by plain HTTP, LFS upwards and ranges downwards, and not by hf_xet: so an interrupted
download goes on within a file, and what the tests run is what runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from logging import LogRecord, getLogger
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NamedTuple

from vtr.api.hub_talk import get_token, status_of, talking
from vtr.clip.hub import transport_error, without_bars
from vtr.counts import human_bytes
from vtr.errors import ConfigError, HubError, StoreError, StoreWriteError
from vtr.files import MAX_DOCUMENT_BYTES, open_shared
from vtr.json_files import as_fields, parse_json
from vtr.progress import note

Kind = Literal["run", "store"]
TYPES: Mapping[Kind, str] = {"run": "model", "store": "dataset"}
MANIFEST = "vtr.json"
CARD = "README.md"
PULLED = "pulled.json"
"""In a pulled folder: where it is from."""
_LONGEST_NAME = 255  # bytes
_SCHEMA = 1
_LOOK_SECONDS = 10.0  # one look; the library itself waits for ever where packets are dropped
_ATTEMPTS = 4  # of a download that stops without a byte more
_PAUSE_SECONDS = 1.0
_TALKATIVE = ("hf_api", "_commit_api", "utils._http")  # modules of the hub's library
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Manifest:
    """`vtr.json` of a repository: what was pushed, as `vtr pull` proves it."""

    schema: int
    kind: Kind
    identity: str  # fingerprint of a store; of a run the digest of how it was trained
    version: str  # of vtr
    files: Mapping[str, str]  # name, relative with "/", to SHA-256 in hex
    sizes: Mapping[str, int]  # bytes of each
    card: str  # digest of the card, as git's: who edits it on the hub keeps the edit

    @classmethod
    def read(cls, text: bytes, source: str) -> Manifest:
        """Checks what a stranger may have written; refuses names that lead out of the folder."""
        needed = f"the {MANIFEST} of vtr push"
        values = parse_json(text, source=source, needed=needed, error=HubError)
        if values.get("schema") != _SCHEMA:
            raise HubError(
                f"{source} has schema {values.get('schema')!r:.40}; this vtr reads schema {_SCHEMA}"
            )
        manifest = as_fields(cls, values, source=source, error=HubError)
        for name, digest in manifest.files.items():
            fits = re.fullmatch("[0-9a-f]{64}", digest) and manifest.sizes.get(name, -1) >= 0
            inside = any(str(folder) in manifest.files for folder in PurePosixPath(name).parents)
            plain = all(map(_is_plain, name.split("/"))) and name not in (MANIFEST, CARD, PULLED)
            if not fits or inside or not plain:
                raise HubError(f"{source} lists {name!r:.120}, which no vtr push writes")
        return manifest


def _is_plain(part: str) -> bool:
    """Returns whether a part of a name leads nowhere else: no "..", nothing hidden, no control.

    Nor longer than a name of a file may be.
    """
    fits = 0 < len(part.encode()) <= _LONGEST_NAME if part.isprintable() else False
    return fits and not part.startswith(".") and "\\" not in part


class HubFile(NamedTuple):
    """A file of a repository."""

    size: int
    sha256: str | None  # of a large file
    git_sha1: str  # of a small one, as git digests it

    def is_that_of(self, content: bytes) -> bool:
        """Returns whether these bytes are the file."""
        if self.sha256 is not None:
            return hashlib.sha256(content).hexdigest() == self.sha256
        return git_sha1(content) == self.git_sha1


def git_sha1(content: bytes) -> str:
    """Returns the digest by which git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def make_manifest(
    kind: Kind, identity: str, files: Mapping[str, tuple[str, int]], card: bytes
) -> Manifest:
    """Returns the manifest of files given as digest and size."""
    from vtr import __version__

    digests = {name: digest for name, (digest, _) in files.items()}
    sizes = {name: size for name, (_, size) in files.items()}
    return Manifest(_SCHEMA, kind, identity, __version__, digests, sizes, git_sha1(card))


def split_name(repo: str) -> tuple[str, Kind | None]:
    """Returns OWNER/NAME, and the kind where an address of the hub says it.

    >>> split_name("https://huggingface.co/datasets/me/clips"), split_name("me/run")
    (('me/clips', 'store'), ('me/run', None))
    """
    if not isinstance(repo, str):
        raise ConfigError(f"the repository is {repo!r:.60}; it must be a text: OWNER/NAME")
    plain = re.sub(r"^(https?://[^/]+/|hf://)(.*?)/*$", r"\2", repo)
    first, _, rest = plain.partition("/")
    kinds: dict[str, Kind] = {"datasets": "store", "models": "run"}
    kind = kinds.get(first) if "/" in rest else None
    name = rest if kind else plain
    parts = name.split("/")
    if len(parts) > 2 or not all(map(_is_hub_name, parts)):
        raise ConfigError(
            f"{repo!r:.120} is no repository: OWNER/NAME of letters, digits, '-', '_' and '.', "
            "96 characters at most, such as me/msrvtt-meanp"
        )
    return name, kind


def _is_hub_name(part: str) -> bool:
    bad = ("--" in part, ".." in part, part.endswith((".", "-", ".git", ".ipynb")))
    return bool(_NAME.fullmatch(part)) and len(part) <= 96 and not any(bad)


class Repository:
    """One repository, OWNER/NAME, at one branch, tag or commit."""

    def __init__(self, name: str, kind: Kind, revision: str, hub_url: str | None) -> None:
        from huggingface_hub import HfApi

        self.api = HfApi(endpoint=(hub_url or os.environ.get("HF_ENDPOINT") or None))
        self.name, self.kind, self.revision = name, kind, revision
        self.where: dict[str, Any] = {"repo_id": name, "repo_type": TYPES[kind]}

    def __str__(self) -> str:
        return f"{'datasets/' if self.kind == 'store' else ''}{self.name}"

    def _talking(self, verb: str) -> AbstractContextManager[None]:
        return talking(f"{verb} {self}", hub=self.api.endpoint, name=self.name)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/{self}"

    def look(self) -> tuple[str, bool] | None:
        """Returns the commit and whether the repository is private; None where there is none."""
        from huggingface_hub.errors import (
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        with self._talking("look at"):
            try:
                info = self.api.repo_info(
                    **self.where, revision=self.revision, timeout=_LOOK_SECONDS
                )
            except RevisionNotFoundError:
                raise HubError(f"{self} has no revision {self.revision!r}") from None
            except RepositoryNotFoundError as error:
                is_denied = error.response.status_code == 401 and get_token() is not None
                if is_denied or isinstance(error, GatedRepoError):
                    raise
                return None
        return str(info.sha), bool(info.private)

    def owner(self) -> str:
        """Returns the name of who the token belongs to."""
        from huggingface_hub import get_session

        with self._talking("find the owner of"):
            headers = _library().build_hf_headers()
            address = f"{self.api.endpoint}/api/whoami-v2"
            response = get_session().get(address, headers=headers, timeout=_LOOK_SECONDS)
            _library().hf_raise_for_status(response)
            return str(response.json()["name"])

    def make(self, *, private: bool) -> None:
        """Makes it, and the branch."""
        with self._talking("make"):
            self.api.create_repo(**self.where, private=private or None, exist_ok=True)

    def branch(self) -> None:
        """Makes the branch."""
        with self._talking("make a branch of"):
            self.api.create_branch(**self.where, branch=self.revision, exist_ok=True)

    def files(self, commit: str) -> dict[str, HubFile]:
        """Returns the files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        with self._talking("list"):
            listed = self.api.list_repo_tree(**self.where, revision=commit, recursive=True)
            return {
                file.path: HubFile(
                    file.size, file.lfs.sha256 if file.lfs else None, str(file.blob_id)
                )
                for file in listed
                if isinstance(file, RepoFile)
            }

    def manifest(self, commit: str, files: Mapping[str, HubFile]) -> Manifest | None:
        """Returns the manifest of a commit; None where it has none."""
        if MANIFEST not in files:
            return None
        return Manifest.read(self.read(commit, MANIFEST, files[MANIFEST]), f"{self}/{MANIFEST}")

    def read(self, commit: str, name: str, file: HubFile) -> bytes:
        """Returns a small file, proven by the digest that the hub lists."""
        if file.size > MAX_DOCUMENT_BYTES:
            raise HubError(
                f"{name} of {self} has {human_bytes(file.size)}; no vtr push writes more than "
                f"{human_bytes(MAX_DOCUMENT_BYTES)}"
            )
        content = io.BytesIO()
        with self._talking(f"fetch {name} of"):
            self._stream(commit, name, content, file.size)
        if not file.is_that_of(content.getvalue()):
            raise HubError(f"{name} of {self} arrived with another digest than the hub lists")
        return content.getvalue()

    def fetch(
        self, commit: str, name: str, part: Path, size: int, tell: Callable[[int], None]
    ) -> None:
        """Fetches a file, going on where `part` ends, which keeps what came before a break.

        Little is written beyond its `size`; `tell` is called with the bytes that are there.
        """
        stalls, most = 0, size_of(part)
        while True:
            with self._talking(f"fetch {name} of"), _writing(part) as file:
                try:
                    return self._stream(commit, name, file, size, tell)
                except (transport_error(), ConnectionError) as error:
                    if status_of(error) is not None or stalls + 1 == _ATTEMPTS:
                        raise
            stalls = 0 if size_of(part) > most else stalls + 1
            most = max(most, size_of(part))
            time.sleep(stalls * _PAUSE_SECONDS)

    def _stream(
        self,
        commit: str,
        name: str,
        file: BinaryIO,
        size: int,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Appends what is missing of a file."""
        from huggingface_hub import get_session, hf_hub_url

        start = file.seek(0, os.SEEK_END)
        if start >= size > 0:
            return
        url = hf_hub_url(filename=name, revision=commit, endpoint=self.api.endpoint, **self.where)
        asked = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        headers = {**_library().build_hf_headers(), **asked}
        with get_session().stream("GET", url, headers=headers) as response:
            _library().hf_raise_for_status(response)
            if start and response.status_code != 206:  # all of it comes again
                file.truncate(start := 0)
            for chunk in response.iter_bytes():
                file.write(chunk)
                start += len(chunk)
                tell(start)
                if start > size:
                    return
        if start < size:
            raise ConnectionError(f"{name} broke off after {start:,} of {size:,} bytes")

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        parent: str,
        digests: Mapping[str, tuple[str, int]],
        deleted: Sequence[str] = (),
    ) -> str:
        """Uploads files and makes one commit of them; returns it.

        What the hub has of an interrupted upload is not sent again.

        Raises:
            StoreError: A file is not the one any more of which `digests` tells.
            VtrError: The hub refuses or cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._talking("push to"))
            stack.enter_context(without_bars())
            stack.enter_context(_heard())
            operations: list[CommitOperationAdd | CommitOperationDelete] = []
            for name, content in files.items():
                try:  # files that are open go by LFS
                    opened = content if isinstance(content, bytes) else content.open("rb")
                except FileNotFoundError:
                    raise _changed(name) from None
                if not isinstance(opened, bytes):
                    stack.enter_context(opened)
                added = CommitOperationAdd(name, opened)  # reads it
                if name in digests and added.upload_info.sha256.hex() != digests[name][0]:
                    raise _changed(name)
                operations.append(added)
            operations += [CommitOperationDelete(name, is_folder=False) for name in deleted]
            made = self.api.create_commit(
                operations=operations,
                commit_message=message,
                revision=self.revision,
                parent_commit=parent,
                **self.where,
            )
            return str(made.oid)


def _changed(name: str) -> StoreError:
    return StoreError(
        f"{name} was replaced while it was pushed, and the push is not finished. Wait until "
        "nothing writes there any more, then run the same command again: what the hub has is not "
        "sent again"
    )


def size_of(path: Path) -> int:
    """Returns the bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _library() -> Any:
    """The parts of the hub's library that it does not type."""
    return importlib.import_module("huggingface_hub.utils")


@contextlib.contextmanager
def _writing(part: Path) -> Iterator[BinaryIO]:
    try:
        with open_shared(part, append=True) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise
        raise StoreWriteError(
            f"cannot write {part.name} in {part.parent}: {error.strerror or error}. What was "
            "fetched before is kept; free some space, then run the same command again"
        ) from None


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Says in our words that the library waits; its own name addresses that are keys themselves."""
    loggers = [getLogger(f"huggingface_hub.{name}") for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(_tell_of_waiting)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how it calls its HTTP library
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_tell_of_waiting)


def _tell_of_waiting(record: LogRecord) -> bool:
    text = record.getMessage()
    if text.startswith(("Rate limited", "Retrying")):
        note(f"the hub does not take it just now: {text}")
    return False

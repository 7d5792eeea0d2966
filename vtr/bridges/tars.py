"""A store as tars that WebDataset reads: `KEY.json` and `KEY.npy` for every video with frames.

WebDataset passes over members below a folder `__NAME__`. There lies what has no frames:
`__vtr__/store.json`, the first member of each tar, says what the numbers depend on, files of
`__vtr__/failed/` have the ledger's other rows, and `__vtr__/end.json` ends a tar that is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtr.bridges.rows import head_values, input_rows, ledger_values, make_row, read_head
from vtr.errors import ConfigError, StoreError
from vtr.features import FeatureSpec, FeatureStore
from vtr.features.foreign import MOST_BYTES, UnusableError, read_npy
from vtr.features.importing import ImportReport, write_rows
from vtr.features.rows import VideoRow
from vtr.features.store import require_same
from vtr.files import MAX_DOCUMENT_BYTES, Create, open_regular
from vtr.foreign import escape_id, shown
from vtr.json_files import parse_json

_META = "__vtr__/"
_HEAD, _END, _FAILED = f"{_META}store.json", f"{_META}end.json", f"{_META}failed/"
_NUMBER = re.compile(r"%(0?)(\d*)d")
_OTHER_NUMBER = re.compile(r"%\d*[dis]|\{\d+\.\.\d+\}")  # several, another letter, a shell's
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KEY_LETTERS = 180  # with endings and a digest below the 255 of a file's name


def key_of(video_id: str) -> str:
    """Returns the name of a video's members: WebDataset ends a key at its first dot.

    >>> key_of("video7010"), key_of("a b/c.mp4")
    ('video7010', 'a%20b%2Fc%2Emp4')
    """
    key = escape_id(video_id).replace(".", "%2E")
    if len(key) <= _KEY_LETTERS:
        return key
    return f"{key[:_KEY_LETTERS]}-{hashlib.sha256(video_id.encode()).hexdigest()[:16]}"


def part_name(pattern: str, number: int) -> str:
    """Returns the name of a numbered tar.

    >>> part_name("it-%05d.tar", 12)
    'it-00012.tar'
    """
    return _NUMBER.sub(lambda found: f"{number:{found[1]}{found[2]}d}", pattern)


def is_pattern(name: str) -> bool:
    """Returns whether a name has the place of a number: %05d."""
    return len(_NUMBER.findall(name)) == 1


def is_other_pattern(name: str) -> bool:
    """Returns whether a name asks for numbers in a way that is not followed here.

    >>> [is_other_pattern(name) for name in ("it-{000..010}.tar", "it-%s.tar", "it-%05d.tar")]
    [True, True, False]
    """
    return not is_pattern(name) and _OTHER_NUMBER.search(name) is not None


def parts_of(pattern: Path) -> list[Path]:
    """Returns the files that a pattern names."""
    before, after = (re.escape(part) for part in (_NUMBER.split(pattern.name)[i] for i in (0, -1)))
    named = re.compile(rf"{before}\d+{after}")
    there = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    return sorted(path for path in there if named.fullmatch(path.name))


# ---- writing


def write_tars(store: FeatureStore, target: Path, create: Create, *, file_bytes: int) -> list[Path]:
    """Writes a tar, or several of about `file_bytes` where the name has a `%05d`.

    Args:
        store: What to write.
        target: The file or the pattern.
        create: Opens the files.
        file_bytes: Where a numbered tar is larger, another begins.
    """
    rows = input_rows(store)
    row = next(rows, None)
    files: list[Path] = []
    inputs = 0
    while row is not None:
        numbered = is_pattern(target.name)
        files.append(target.with_name(part_name(target.name, len(files))) if numbered else target)
        file = create(files[-1])
        with tarfile.open(fileobj=file, mode="w") as archive:
            tar = _Writer(archive)
            tar.add(_HEAD, {**head_values(store), "part": len(files) - 1})
            while row is not None and not (numbered and file.tell() > file_bytes):
                _add_row(tar, row)
                inputs += 1
                row = next(rows, None)
            digest = tar.digest.hexdigest()
            tar.add(_END, {"inputs": inputs, "last": row is None, "sha256": digest})
    return files


def _add_row(tar: _Writer, row: VideoRow) -> None:
    key, values = key_of(row.ledger.id), ledger_values(row)
    if not len(row.frames):
        tar.add(f"{_FAILED}{key}.json", values)
        return
    tar.add(f"{key}.json", {**values, "pts_seconds": row.pts_seconds.tolist()})
    tar.add(f"{key}.npy", _npy(row.frames))
    if row.luma is not None:
        tar.add(f"{key}.luma.npy", _npy(row.luma))


def _npy(array: NDArray[Any]) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array(held, np.ascontiguousarray(array), allow_pickle=False)
    return held.getvalue()


class _Writer:
    """Adds members, and keeps the digest of all of them."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.digest = hashlib.sha256()

    def add(self, name: str, content: bytes | Mapping[str, Any]) -> None:
        """Adds a file, of JSON where its content is no bytes."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        member = tarfile.TarInfo(name)
        member.size = len(payload)
        self._archive.addfile(member, io.BytesIO(payload))
        _update(self.digest, name, payload)


def _update(digest: Any, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)


# ---- reading


def is_tar(source: Path) -> bool:
    """Returns whether a source is a tar, a folder of such or a pattern that names them."""
    if source.is_dir():
        return any(source.glob("*.tar"))
    return source.suffix.lower() == ".tar"


class _Part(NamedTuple):
    """What the first member of a tar says."""

    path: Path
    number: int
    spec: FeatureSpec
    pad: NDArray[np.float32]


def read_tars(source: Path, store: Path) -> ImportReport:
    """Makes a store of what `write_tars` wrote, holding one shard of it in memory."""
    if source.is_dir():
        files = sorted(source.glob("*.tar"))
    else:
        files = parts_of(source) if is_pattern(source.name) else [source]
    if not files or not source.parent.is_dir():
        raise ConfigError(f"no file {source}")
    parts = sorted(map(_part, files), key=lambda part: part.number)
    for place, part in enumerate(parts):
        require_same(parts[0].spec, part.spec, what=f"{parts[0].path.name} and {part.path.name}")
        if part.number != place:
            wrong = "twice" if part.number < place else "not there"
            raise StoreError(f"{source}: part {min(place, part.number)} of the store is {wrong}")
    return write_rows(store, _rows(parts), parts[0].spec, parts[0].pad)


def _part(path: Path) -> _Part:
    _, content = next(_members(path), ("", b""))
    values = _document(path, content)
    spec, pad = read_head(values, source=path)
    number = values.get("part")
    if not isinstance(number, int):
        raise StoreError(f"{path}: part is {shown(number, 20)}; allowed: a whole number")
    return _Part(path, number, spec, pad)


def _rows(parts: list[_Part]) -> Iterator[VideoRow]:
    inputs = 0
    end: dict[str, Any] = {}
    for path, _, spec, _ in parts:
        end = {}
        digest = hashlib.sha256()
        members = _counted_in(digest, _members(path))
        next(members)
        for name, content in members:
            if name == _END:
                end = _document(path, content)
                break
            if not name.endswith(".json"):
                raise StoreError(f"{path} has a member {shown(name, 80)!r} that vtr never wrote")
            yield _row(path, name, content, members, spec)
            inputs += 1
        if end.get("inputs") != inputs or end.get("sha256") != digest.hexdigest():
            raise StoreError(f"{path} is cut off or damaged, by its digest: copy it again")
    if not end.get("last"):
        raise StoreError(f"{parts[-1].path} is not the last part of its store: one is missing")


def _counted_in(digest: Any, members: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yields members; each is in the digest when the next one is asked for."""
    for name, content in members:
        yield name, content
        _update(digest, name, content)


def _row(
    path: Path, name: str, content: bytes, members: Iterator[tuple[str, bytes]], spec: FeatureSpec
) -> VideoRow:
    """Returns a row, whose arrays are the members that follow."""
    values = _document(path, content)
    times = values.pop("pts_seconds", [])
    side = spec.thumbnail_side
    arrays: list[NDArray[Any]] = [np.zeros((0, spec.embedding_dim), spec.storage_dtype)]
    if side is not None:
        arrays.append(np.zeros((0, side, side), np.uint8))
    if not name.startswith(_META):
        key = name.removesuffix(".json")
        for place, ending in enumerate((".npy", ".luma.npy")[: len(arrays)]):
            found, array = next(members, ("", b""))
            if found != key + ending:
                raise StoreError(f"{path}: the member {shown(key + ending, 200)!r} is missing")
            try:
                arrays[place] = read_npy(io.BytesIO(array), len(array))
            except (UnusableError, ValueError) as error:
                raise StoreError(f"{path}: {shown(found, 200)!r}: {shown(error)}") from None
    try:
        pts_seconds = np.array(times, np.float64)
    except (TypeError, ValueError):
        raise StoreError(f"{path}: pts_seconds in {shown(name, 200)!r} are no numbers") from None
    return make_row(values, arrays[0], pts_seconds, *arrays[1:], spec=spec)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of each member, holding one at a time."""
    try:
        with (
            os.fdopen(open_regular(path), "rb") as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or all that were read stay listed
                most = MAX_DOCUMENT_BYTES if member.name.endswith(".json") else MOST_BYTES
                content = tar.extractfile(member) if member.type in _PLAIN else None
                if content is None or member.issparse() or not 0 <= member.size <= most:
                    raise StoreError(f"{path}: the member {shown(member.name, 80)!r} is not ours")
                payload = content.read()
                if len(payload) != member.size:
                    raise StoreError(f"{path} is cut off within {shown(member.name, 80)!r}")
                yield member.name, payload
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StoreError(
            f"{path} cannot be read as a tar: {shown(getattr(error, 'strerror', 0) or error)}"
        ) from None


def _document(path: Path, content: bytes) -> dict[str, Any]:
    return parse_json(content, source=path, needed="what vtr export wrote", error=StoreError)

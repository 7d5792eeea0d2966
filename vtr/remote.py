"""Videos on other file systems (s3://, gs://, http://, ...) by fsspec: listed there, fetched whole.

A path of ours stands for a URL by its beginning: `Path("s3://bucket/x")` is `s3:/bucket/x`, and is
never joined to a folder of this machine; `located` gives one that prints both slashes. FFmpeg sees
no URL, only the file that was fetched.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from vtr.errors import ConfigError, DecodeError
from vtr.foreign import printable, shown

MOST_BYTES = 64 << 30
"""Of one video that is fetched."""
FACTS_SECONDS = 10.0
"""In which a file system says how large a file is, or is taken for one that says nothing."""
OF_URL = (
    ". A workspace of it is needed: in a folder of its own, vtr init --videos URL, then vtr extract"
)
"""What to do where a command wants a folder of videos."""
_CHUNK_BYTES = 4 << 20
_PAUSES = (0.5, 2.0)  # seconds, after which what did not come is asked for again
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)


def as_path(value: str | Path) -> Path:
    """Returns a path, the home folder expanded in a text.

    Unlike Path.expanduser, this leaves "./~x" and the home of an unknown user as they are.
    """
    return value if isinstance(value, Path) else Path(os.path.expanduser(value))  # noqa: PTH111


def url_of(path: str | Path) -> str | None:
    """Returns the URL that a path stands for, None for one of this machine.

    >>> url_of(Path("s3://bucket/a b.mp4")), url_of(Path("/data/a.mp4"))
    ('s3://bucket/a b.mp4', None)
    """
    match = _URL.fullmatch(str(path))
    if match is None:
        return None
    slashes = "///" if match[1] in ("file", "local") else "//"
    return f"{match[1]}:{slashes}{match[2]}"


class _UrlPath(PosixPath):
    def __str__(self) -> str:
        plain = super().__str__()
        return url_of(plain) or plain


def located(path: str | Path) -> Path:
    """Returns a path; one that stands for a URL, and all below it, is written as that URL.

    >>> print(located("s3://bucket") / "a b.mp4", located("/data"))
    s3://bucket/a b.mp4 /data
    """
    return _UrlPath(path) if url_of(path) else Path(path)


def absolute(path: Path) -> Path:
    """Returns where a path leads from anywhere: one that stands for a URL does so as it is."""
    return path if url_of(path) else path.absolute()


def uri_of(path: Path) -> str:
    """Returns a link to a file, here or elsewhere."""
    return url_of(path) or path.absolute().as_uri()


def check_url(url: str) -> str:
    """Returns a URL without secrets: what is named on a command line is printed and written down.

    Raises:
        ConfigError: It has a password, or a token in front of a web server's name.
    """
    protocol = url.partition(":")[0]
    user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    if at and (":" in user or protocol in ("http", "https")):
        raise ConfigError(
            f"the {protocol}:// address has a password in it, which would be printed and written "
            "into files. Leave it out, and give it where fsspec looks for it: the variables "
            f"FSSPEC_{protocol.upper()}_USERNAME and FSSPEC_{protocol.upper()}_PASSWORD, or "
            f"FSSPEC_{protocol.upper()} as JSON; for s3 and gs what their own tools read"
        )
    return url


def require_local(path: Path, *, verb: str, instead: str = "") -> Path:
    """Returns a path of this machine; of a URL it says what reads those, and `instead`."""
    if url := url_of(path):
        raise ConfigError(
            f"vtr {verb} reads folders of this machine, and {printable(check_url(url))} is none; "
            f"only vtr extract, vtr init and vtr data verify read URLs{instead}"
        )
    return path


def list_files(url: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the files below a folder, by their paths relative to it, and what was not listed.

    Every folder is listed by itself: what fsspec's own walk cannot list it leaves out in silence.

    Returns:
        The names, and (folder, why) of folders that cannot be listed.

    Raises:
        ConfigError: The protocol's package is missing, or there is no such folder.
    """
    system, root = _system(check_url(url))
    root = root.rstrip("/")
    names: list[str] = []
    unreadable: list[tuple[str, str]] = []
    todo, seen = [root], {root}
    while todo:
        folder = todo.pop()
        try:
            entries = [(str(one["name"]).rstrip("/"), one["type"]) for one in _ls(system, folder)]
        except Exception as error:  # noqa: BLE001  (every protocol has errors of its own)
            if folder == root:
                reason = "there is no such folder"
                reason = reason if isinstance(error, FileNotFoundError) else _words(error)
                raise ConfigError(
                    f"the folder of videos is {printable(url)}, but {reason}"
                ) from None
            unreadable.append((_plain(folder[len(root) + 1 :], url), _words(error)))
            continue
        for name, kind in sorted(entries, reverse=True):
            if name in seen or not name.startswith(f"{root}/"):
                continue
            seen.add(name)
            if kind == "directory":
                todo.append(name)
            else:
                names.append(_plain(name[len(root) + 1 :], url))
    if not names and not unreadable:
        raise ConfigError(f"the folder of videos is {printable(url)}, but there are no files")
    return names, unreadable


def _ls(system: Any, folder: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = system.ls(folder, detail=True)
    return found


def _plain(name: str, url: str) -> str:
    """Returns what a name on a web page stands for; as it is where it could not be asked for."""
    if not url.startswith(("http:", "https:")):
        return name
    plain = unquote(html.unescape(name))
    return plain if unquote(_escaped(plain)) == plain else name


def _escaped(name: str) -> str:
    """Escapes what an address must not hold; escapes that are there stay.

    >>> _escaped("a b#1 100%.mp4"), _escaped("a%20b")
    ('a%20b%231%20100%25.mp4', 'a%20b')
    """
    return quote(re.sub(r"%(?![0-9a-fA-F]{2})", "%25", name), safe="%/:@&=+$,;!~*'()[]")


def facts_of(url: str) -> dict[str, Any]:
    """Returns size and date of a file as `vtr.extract.resume.file_facts` does; {} for none.

    None, too, of one that does not answer: who asks has no time limit of its own.
    """
    facts: dict[str, Any] = {}
    asking = threading.Thread(target=_ask, args=(url, facts), daemon=True)
    asking.start()
    asking.join(FACTS_SECONDS)
    return {} if asking.is_alive() else facts


def _ask(url: str, facts: dict[str, Any]) -> None:
    with suppress(Exception):
        system, path = _system(url)
        num_bytes = int(system.info(path)["size"])
        try:
            mtime_ns = int(system.modified(path).timestamp() * 1e9)
        except Exception:  # noqa: BLE001  (some protocols know no dates)
            mtime_ns = -1
        facts |= {"file_bytes": num_bytes, "file_mtime_ns": mtime_ns}


@contextmanager
def fetched(path: Path | str) -> Iterator[Path]:
    """Yields a file of this machine: the path itself, or what was fetched from its URL.

    The copy has no name, so that nothing stays behind, however the process ends.

    Raises:
        DecodeError: It cannot be fetched whole.
    """
    url = url_of(path)
    if url is None:
        yield Path(path)
        return
    with _scratch(url) as file:
        for pause in (*_PAUSES, None):  # a server that stumbles is asked again
            try:
                _fetch(url, file)
                break
            except _PassingError as error:
                if pause is None:
                    raise DecodeError("not-fetched", f"{shown(url)}: {error}") from None
            file.seek(0)
            file.truncate()
            time.sleep(pause)
        yield Path(f"/proc/self/fd/{file.fileno()}")


class _PassingError(Exception):
    """What may go well the next time."""


def _fetch(url: str, file: BinaryIO) -> None:
    """Writes what a URL leads to into a file."""
    try:
        system, place = _system(url)
        with system.open(place, "rb") as source:
            size, expected = 0, system.info(place).get("size")
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > MOST_BYTES:
                    raise DecodeError("too-large", f"has more than {MOST_BYTES:,} bytes")
                _write(url, file, chunk)
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        # Of a web server fsspec calls every refusal a file that is not there.
        at_web = url.startswith(("http:", "https:"))
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and at_web else None
        status = getattr(cause or error, "status", None)
        if isinstance(error, FileNotFoundError) and (cause is None or status in (404, 410)):
            raise DecodeError("not-found", f"nothing at {shown(url)}") from None
        if isinstance(status, int) and 300 <= status < 500 and status not in (408, 429):
            raise DecodeError("not-fetched", f"{shown(url)}: {_words(cause or error)}") from None
        raise _PassingError(_words(cause or error)) from None
    if expected is not None and size != expected:
        raise _PassingError(f"{size:,} of {expected:,} bytes came")


@contextmanager
def _scratch(url: str) -> Iterator[BinaryIO]:
    """Yields a file without a name and without a buffer, so that a full disk is seen at once."""
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    except OSError as error:
        raise _no_room(url, error) from None
    with file:
        yield file


def _write(url: str, file: BinaryIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:  # what nearly fills a disk is written in part
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _no_room(url, error) from None


def _no_room(url: str, error: OSError) -> DecodeError:
    return DecodeError(
        "not-fetched",
        f"{shown(url)}: no room for it in the scratch folder ({error.strerror or error}); set "
        "TMPDIR to a folder on another disk, then --retry failed",
    )


def _system(url: str) -> tuple[Any, str]:
    import fsspec.core

    protocol = url.partition(":")[0]
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(_missing(protocol, error)) from None
    except Exception as error:  # noqa: BLE001  (some connect at once)
        raise ConfigError(f"{printable(url)} cannot be reached: {_words(error)}") from None
    return system, _escaped(str(path)) if protocol in ("http", "https") else str(path)


def _missing(protocol: str, error: Exception) -> str:
    from fsspec.registry import known_implementations

    if protocol not in known_implementations:
        return f"{protocol}:// is no protocol that fsspec knows ({shown(error)})"
    package = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}.get(protocol, "")
    line = f": pip install {package}" if package else ""
    return f"{protocol}:// needs a package that is not installed ({shown(error)}){line}"


def _words(error: BaseException) -> str:
    return shown(str(error) or type(error).__name__)

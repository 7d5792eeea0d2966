"""Videos on other file systems (s3://, gs://, http://, ...) by fsspec: listed there, fetched whole.

A path of ours stands for a URL by its beginning: `Path("s3://bucket/x")` is `s3:/bucket/x`, and is
never joined to a folder of this machine. FFmpeg sees no URL, only the file that was fetched.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vtr.errors import ConfigError, DecodeError
from vtr.foreign import printable, shown

MOST_BYTES = 64 << 30
"""Of one video that is fetched."""
_CHUNK_BYTES = 4 << 20
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)


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


def list_files(url: str) -> list[str]:
    """Returns the files below a folder, by their paths relative to it.

    Raises:
        ConfigError: The protocol's package is missing, or there is no such folder.
    """
    system, root = _system(url)
    try:
        found = [str(name) for name in system.find(root)]
    except Exception as error:  # noqa: BLE001  (every protocol has errors of its own)
        raise ConfigError(f"--videos is {printable(url)}, but {_words(error)}") from None
    start = f"{root.rstrip('/')}/"
    names = [name.removeprefix(start) for name in found if name.startswith(start)]
    if not names:
        raise ConfigError(f"--videos is {printable(url)}, but there are no files")
    return names


def facts_of(url: str) -> dict[str, Any]:
    """Returns size and date of a file as `vtr.extract.resume.file_facts` does; {} for none."""
    try:
        system, path = _system(url)
        info = system.info(path)
        facts = {"file_bytes": int(info["size"])}
    except Exception:  # noqa: BLE001
        return {}
    try:
        facts["file_mtime_ns"] = int(system.modified(path).timestamp() * 1e9)
    except Exception:  # noqa: BLE001  (some protocols know no dates)
        facts["file_mtime_ns"] = -1
    return facts


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
    with tempfile.TemporaryFile() as file:
        try:
            system, place = _system(url)
            with system.open(place, "rb") as source:
                size, expected = 0, system.info(place).get("size")
                while chunk := source.read(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > MOST_BYTES:
                        raise DecodeError("too-large", f"has more than {MOST_BYTES:,} bytes")
                    file.write(chunk)
            file.flush()
        except FileNotFoundError:
            raise DecodeError("not-found", f"nothing at {shown(url)}") from None
        except (DecodeError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001
            raise DecodeError("not-fetched", f"{shown(url)}: {_words(error)}") from None
        if expected is not None and size != expected:
            raise DecodeError("not-fetched", f"{size:,} of {expected:,} bytes of {shown(url)} came")
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _system(url: str) -> tuple[Any, str]:
    import fsspec.core

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(_missing(url.partition(":")[0], error)) from None
    return system, str(path)


def _missing(protocol: str, error: Exception) -> str:
    from fsspec.registry import known_implementations

    if protocol not in known_implementations:
        return f"{protocol}:// is no protocol that fsspec knows ({shown(error)})"
    package = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}.get(protocol, "")
    line = f": pip install {package}" if package else ""
    return f"{protocol}:// needs a package that is not installed ({shown(error)}){line}"


def _words(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)

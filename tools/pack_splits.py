"""How `vtr/datasets/data/*.txt.xz` were written; `vtr.datasets.published` reads them."""

from __future__ import annotations

import lzma
import re
from collections.abc import Mapping, Sequence

_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d*)")


def pack_splits(splits: Mapping[str, Sequence[tuple[str, str]]]) -> bytes:
    """Returns the bytes of one shipped file; the inverse of `published.unpack_splits`.

    Args:
        splits: Split name to (id, caption id or empty text).
    """
    lines: list[str] = []
    for split, rows in splits.items():
        lines.append(f"[{split}]")
        run: list[str] = []
        for identity, caption in rows:
            if caption or (run and not _follows(run[-1], identity)):
                lines += _spell(run)
                run = []
            if caption:
                lines.append(f"{identity} {caption}")
            else:
                run.append(identity)
        lines += _spell(run)
    text = "".join(f"{line}\n" for line in lines)
    # Ids are close to random letters: contexts of earlier bytes only dilute the statistics.
    options = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}
    return lzma.compress(text.encode(), check=lzma.CHECK_CRC32, filters=[options])


def _spell(run: Sequence[str]) -> list[str]:
    if len(run) < 2:
        return list(run)
    numbered = _NUMBERED.fullmatch(run[-1])
    assert numbered is not None
    return [f"{run[0]}..{numbered.group(2)}"]


def _follows(before: str, after: str) -> bool:
    one, other = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
    if one is None or other is None or one.group(1) != other.group(1):
        return False
    return int(other.group(2)) == int(one.group(2)) + 1

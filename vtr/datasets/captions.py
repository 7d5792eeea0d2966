"""Captions as annotation files spell them: a text, several, words, or a list spelt as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from vtr.datasets.documents import is_missing
from vtr.errors import DatasetError
from vtr.foreign import printable

_TOKEN = re.compile(
    r"""\s*(?:[uU]?(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<none>None|nan|null|NaN)\b"""
    r"""|(?P<mark>[\[\](){},]))\s*""",
    re.DOTALL,
)
_LIST = re.compile(
    r"""[\[({]\s*([\[({]\s*)?[uUbBrR]?['"\u2018\u201c]|\[\s*\]$|\[\s*(None|nan|null|NaN)\s*[\],]"""
)
_CUT_LIST = re.compile(r"""\[\s*[uUbB]?(?:'[^']*'|"[^"]*")\s*,""")
_ESCAPE = re.compile(
    r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)", re.DOTALL
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\", "/": "/"}


def sentences(value: object, *, place: str) -> list[object]:
    """Returns the captions in a value that is one caption or several.

    A text is one caption; a list of texts is several; in a list of lists each inner list is the
    words of one caption. A text is never taken apart into its letters.

    Returns:
        Texts, and what stands for a missing one (None, NaN), for `CaptionList.add` to judge.
    """
    if isinstance(value, str) or is_missing(value):
        return [value]
    if not isinstance(value, list | tuple):
        raise DatasetError(
            f"{place}: captions must be a text, a list of texts or a list of word lists, "
            f"not {value!r:.80}"
        )
    return [_sentence(item, place) for item in value]


def _sentence(value: object, place: str) -> object:
    if isinstance(value, str) or is_missing(value):
        return value
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    raise DatasetError(f"{place}: a caption must be a text or a list of words, not {value!r:.80}")


def paragraph(parts: Iterable[object], *, place: str) -> str:
    """Returns sentences joined to one text, each without blanks around it."""
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part.strip())
        elif not is_missing(part):
            raise DatasetError(f"{place}: a sentence must be a text, not {part!r:.80}")
    return " ".join(filter(None, texts))


def listed_captions(text: str, *, place: str) -> object:
    r"""Returns the captions of a text that spells a list of them, as JSON, Python or NumPy would.

    Nothing in it is run. A text that merely has brackets is returned as it is.

    >>> listed_captions('["a cat", \'it\\\'s fast\']', place="line 2")
    ['a cat', "it's fast"]
    >>> listed_captions("[music] a man sings", place="line 3")
    '[music] a man sings'
    """
    if not any(mark in text for mark in "[({"):
        return text
    bare = re.sub(r"^array\((.*?)(,\s*dtype=\w+)?\)$", r"\1", text.strip(), flags=re.DOTALL)
    if not _LIST.match(bare):
        return text
    try:
        captions = json.loads(bare) if bare[0] == "[" else None
    except (ValueError, RecursionError):
        captions = None
    if not isinstance(captions, list):
        captions = _python_list(bare)
    if captions is not None:
        return captions
    if (bare[0] == "(" or bare[-1] not in "])}") and not _CUT_LIST.match(bare):
        return text
    raise DatasetError(
        f"{place}: {printable(text)!r:.80} begins as a list of captions and is none. Write one "
        'caption a row, or a list as JSON: ["one", "two"]'
    )


def _python_list(text: str) -> list[Any] | None:
    """Returns a list of texts, or of lists of texts; None where it is something else."""
    outer: list[Any] = []
    stack = [outer]
    at, after_text = 0, False
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None or (after_text and token["text"] and not text[at - 1].isspace()):
            return None
        mark = token["mark"]
        if mark and mark in "[({":
            inner: list[Any] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif mark and mark in "])}":
            stack.pop()
        elif not mark:
            stack[-1].append(_unquoted(token["text"]) if token["text"] else None)
        after_text = token["text"] is not None
        at = token.end()
        closed = len(stack) == 1
        if closed != (at == len(text)) or len(stack) > 3:
            return None
    return outer[0] if len(outer) == 1 and isinstance(outer[0], list) else None


def _unquoted(literal: str) -> str:
    def letter(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, match[0])

    return _ESCAPE.sub(letter, literal[1:-1])

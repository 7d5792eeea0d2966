"""A look at a pickle before it is read: what its keys would cost.

A tuple within a tuple twice, and so on 45 deep, takes 200 bytes as a pickle; as a key its hash
takes 2**45 steps, in which not even Ctrl-C is heard.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

_HEAVIEST = 1 << 20
_HASHABLE = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_RECALLED = frozenset({"GET", "BINGET", "LONG_BINGET"})
_KEPT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_MARK = -1


def require_light_keys(payload: bytes) -> None:
    """Refuses a pickle in which a tuple has more parts, counted wherever they occur, than 2**20.

    Nothing of it is run.

    Raises:
        pickle.UnpicklingError: Such a tuple, or a stream that is no pickle.
    """
    stack: list[int] = []  # the weight of what would lie there
    memo: dict[int, int] = {}
    try:
        for opcode, argument, _ in pickletools.genops(payload):
            _step(stack, memo, opcode, argument)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise pickle.UnpicklingError(f"no whole pickle ({error})") from None


def _step(stack: list[int], memo: dict[int, int], opcode: Any, argument: Any) -> None:
    name = opcode.name
    if name in _RECALLED:
        stack.append(memo[int(argument)])
    elif name in _KEPT:
        memo[len(memo) if argument is None else int(argument)] = stack[-1]
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "DUP":
        stack.append(stack[-1])
    elif not opcode.stack_before:
        stack.append(1)
    else:
        taken = _taken(stack, opcode.stack_before)
        weight = 1 + sum(taken) if name in _HASHABLE else 1
        if weight > _HEAVIEST:
            raise pickle.UnpicklingError("its tuples hold each other without end")
        stack.extend([weight] * len(opcode.stack_after))


def _taken(stack: list[int], wanted: list[Any]) -> list[int]:
    """Takes from the stack what an opcode takes; returns what lay above the mark, or all."""
    if pickletools.markobject not in wanted:
        return [stack.pop() for _ in wanted]
    taken = []
    while (top := stack.pop()) != _MARK:
        taken.append(top)
    for _ in range(wanted.index(pickletools.markobject)):
        stack.pop()
    return taken

"""Leaves the examples that need the demo world to tests/test_public.py, which makes one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.doctest import DoctestItem


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects them where a module's doctests are collected."""
    later = [item for item in items if isinstance(item, DoctestItem) and _needs_world(item)]
    config.hook.pytest_deselected(items=later)
    items[:] = [item for item in items if item not in later]


def _needs_world(item: DoctestItem) -> bool:
    examples: Iterable[object] = item.dtest.examples if item.dtest else ()
    return any(
        word in getattr(example, "source", "")
        for example in examples
        for word in ("demo-world", "demo_workspace")
    )

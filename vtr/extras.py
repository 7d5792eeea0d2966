"""Packages that only some work needs: each comes with an extra of pyproject.toml."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from vtr.errors import ConfigError


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Returns which of the packages are not installed; none is imported."""
    return [name for name in packages if find_spec(name) is None]


def require_extra(
    extra: str, packages: Sequence[str], who: str, *, needs: str | None = None, instead: str = ""
) -> None:
    """Refuses work whose packages are missing; called before it begins, so that none is half done.

    >>> require_extra("otio", ["no_such_package"], "--cut-list")
    Traceback (most recent call last):
    vtr.errors.ConfigError: --cut-list needs no_such_package: pip install 'vtr[otio]'

    Args:
        extra: What brings them.
        packages: By the names that are imported.
        who: Whose work it is, such as the option.
        needs: What people call the packages; by default the names of those that are missing.
        instead: What goes without them, to stand behind.
    """
    if missing := missing_packages(packages):
        what = needs or ", ".join(missing)
        raise ConfigError(f"{who} needs {what}: pip install 'vtr[{extra}]'{instead}")

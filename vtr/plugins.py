"""One file is one plug-in: lists the modules of a package and loads one by its option name.

The file name is the option name, with `_` shown as `-`. Modules whose name starts with `_`, and
those a package names in its `HELPERS`, are not plug-ins.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vtr.errors import UnknownNameError


def plugin_names(package: ModuleType) -> list[str]:
    """Returns the option names of all plug-ins in `package`, sorted."""
    helpers = set(getattr(package, "HELPERS", ()))
    return sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and module.name not in helpers
    )


def load_plugin(package: ModuleType, name: str, *, kind: str) -> ModuleType:
    """Imports the plug-in called `name`.

    Args:
        package: The package that holds one file per plug-in.
        name: Option name, as listed by `plugin_names`.
        kind: What to call it in an error ("sampler").

    Raises:
        UnknownNameError: No such file; the nearest name is suggested.
    """
    names = plugin_names(package)
    if name not in names:
        raise UnknownNameError(kind, name, names)
    return importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}")

"""How ``import gearman`` comes to mean this library, for programs that were written for another."""

from __future__ import annotations

import importlib
import sys
from typing import Final

#: The modules that python-gearman has, as far as programs use them.
MODULES: Final = (
    "admin_client",
    "client",
    "connection",
    "connection_manager",
    "constants",
    "errors",
    "job",
    "protocol",
    "util",
    "worker",
)


def install_as_gearman(name: str = "gearman") -> None:
    """Make ``import gearman`` mean this library, for a program that was written for python-gearman.

    Call it before anything imports `gearman`. The modules that python-gearman has are there then,
    and in them what its programs use beyond its documentation: see docs/howto/migrating.md. A new
    program needs none of it, and imports gearman_sync.

    Args:
        name: What the program imports, where that is another library's name: ``python3_gearman``.

    Raises:
        RuntimeError: Another package of that name is imported already.
    """
    package = importlib.import_module("gearman_sync.compat")
    found = sys.modules.get(name, package)
    if found is not package:
        raise RuntimeError(
            f"{name} is imported already, from {getattr(found, '__file__', None)}: "
            "call install_as_gearman() before anything imports it"
        )
    sys.modules[name] = package
    for module in MODULES:
        sys.modules[f"{name}.{module}"] = getattr(package, module)

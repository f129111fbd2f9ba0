"""Make ``import gearman`` import this library, for programs written for another library."""

from __future__ import annotations

import importlib
import sys
from typing import Final

#: The modules of python-gearman that programs use.
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


#: Libraries whose jobs, results and updates have str as data.
TEXT_LIBRARIES: Final = ("python3_gearman", "py3gearman")


def install_as_gearman(name: str = "gearman", *, text: bool | None = None) -> None:
    """Make ``import gearman`` import this library, for a program written for python-gearman.

    Call this function before anything imports `gearman`. It provides the modules of python-gearman,
    including the undocumented names that programs use. See docs/howto/migrating.md. New programs
    should import gearman_sync instead.

    Args:
        name: The name that the program imports, if it uses another library, such as
            ``python3_gearman``.
        text: If true, the data of jobs, results and updates is str, unless a class has its own
            `data_encoder`. If false, it is bytes. None means true for ``python3_gearman`` and
            ``py3gearman``, as in those libraries, and false for other names.

    Raises:
        RuntimeError: Another package of that name has already been imported.
    """
    is_text = name in TEXT_LIBRARIES if text is None else text
    package = importlib.import_module(f"gearman_sync.compat{'.text' * is_text}")
    found = sys.modules.get(name, package)
    if found is not package:
        raise RuntimeError(
            f"{name} is imported already, from {getattr(found, '__file__', None)}: "
            "call install_as_gearman() before anything imports it"
        )
    sys.modules[name] = package
    for module in MODULES:
        sys.modules[f"{name}.{module}"] = getattr(package, module)

"""`install_as_gearman` and all forms of `import gearman` afterwards."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from typing import Any

import pytest

import gearman_sync
from gearman_sync import install_as_gearman
from gearman_sync._install import MODULES
from tests.support import require_module
from tests.sync.support import ROOT

# The names that programs import, by module.
IMPORTED: dict[str, tuple[str, ...]] = {
    "gearman": (
        *("GearmanClient", "GearmanWorker", "GearmanAdminClient", "DataEncoder"),
        *("PRIORITY_NONE", "PRIORITY_LOW", "PRIORITY_HIGH", "__version__"),
        *("JOB_PENDING", "JOB_CREATED", "JOB_FAILED", "JOB_COMPLETE", "JOB_UNKNOWN"),
    ),
    "gearman.admin_client": ("GearmanAdminClient", "ServerUnavailable", "InvalidAdminClientState"),
    "gearman.client": (
        *("GearmanClient", "JOB_UNKNOWN", "JOB_PENDING", "PRIORITY_HIGH", "RANDOM_UNIQUE_BYTES"),
        *("ExceededConnectionAttempts", "ServerUnavailable", "ConnectionError"),
    ),
    "gearman.connection": ("GearmanConnection", "ConnectionError"),
    "gearman.connection_manager": ("GearmanConnectionManager", "DataEncoder", "NoopEncoder"),
    "gearman.constants": (
        *("DEFAULT_GEARMAN_PORT", "PRIORITY_HIGH", "JOB_PENDING", "JOB_UNKNOWN", "JOB_COMPLETE"),
    ),
    "gearman.errors": (
        *("GearmanError", "ConnectionError", "ServerUnavailable", "ProtocolError"),
        *("UnknownCommandError", "ExceededConnectionAttempts", "InvalidClientState"),
        *("InvalidWorkerState", "InvalidAdminClientState"),
    ),
    "gearman.job": ("GearmanJob", "GearmanJobRequest", "JOB_UNKNOWN", "JOB_COMPLETE"),
    "gearman.protocol": ("GEARMAN_COMMAND_CAN_DO", "get_command_name"),
    "gearman.util": ("Stopwatch", "disambiguate_server_parameter", "unlist"),
    "gearman.worker": ("GearmanWorker", "POLL_TIMEOUT_IN_SECONDS", "ServerUnavailable"),
}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", IMPORTED)
def test_imported_module_has_the_names(nothing: None, name: str, text: bool) -> None:
    install_as_gearman(text=text)
    namespace: dict[str, Any] = {}
    for each in IMPORTED[name]:
        exec(f"from {name} import {each}", namespace)
        assert namespace[each] is not None or each == "PRIORITY_NONE"


def test_all_forms_of_import_work(gearman: Any) -> None:
    namespace: dict[str, Any] = {}
    for line in (
        "import gearman.client",
        "import gearman.client as aliased",
        "from gearman import client as from_package",
        "from gearman.errors import *",
        "import gearman.errors, gearman.worker",
    ):
        exec(line, namespace)
    assert namespace["gearman"] is gearman
    assert namespace["aliased"] is namespace["from_package"] is gearman.client
    assert namespace["ServerUnavailable"] is gearman.errors.ServerUnavailable
    for name in MODULES:
        assert importlib.import_module(f"gearman.{name}") is getattr(gearman, name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gearman.client_handler")


def test_install_under_several_names(nothing: None) -> None:
    install_as_gearman("other")
    assert "gearman" not in sys.modules
    other: Any = importlib.import_module("other.worker")
    for _ in range(2):
        install_as_gearman()
        gearman: Any = importlib.import_module("gearman.worker")
        assert other.GearmanWorker is gearman.GearmanWorker


def test_install_after_another_package_raises(nothing: None) -> None:
    require_module("gearman")
    real = importlib.import_module("gearman")
    with pytest.raises(RuntimeError, match=r"is imported already, from .*__init__\.py: call"):
        install_as_gearman()
    assert sys.modules["gearman"] is real
    sys.modules["gearman"] = types.ModuleType("gearman")
    with pytest.raises(RuntimeError, match="from None"):
        install_as_gearman()


def test_import_of_the_library_installs_nothing() -> None:
    program = (
        "import sys, gearman_sync; "
        "print([n for n in sys.modules if 'compat' in n and 'gearman' in n], "
        "'gearman' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout == "[] False\n"


def test_install_leaves_the_library_unchanged(gearman: Any) -> None:
    """The mode has its own classes, and shares the exceptions."""
    assert gearman.GearmanClient is not gearman_sync.GearmanClient
    assert issubclass(gearman.GearmanClient, gearman_sync.GearmanClient)
    assert gearman.errors.ServerUnavailable is gearman_sync.errors.ServerUnavailable
    assert type(gearman_sync.GearmanClient(["localhost"]).connection_list[0]).__name__ == "Server"


def test_utilities_work(gearman: Any) -> None:
    util = gearman.util
    assert util.disambiguate_server_parameter("host:1") == ("host", 1)
    assert util.disambiguate_server_parameter("host") == ("host", 4730)
    assert util.unlist([]) is None
    assert util.unlist(["one"]) == "one"
    with pytest.raises(ValueError, match="2"):
        util.unlist([1, 2])
    assert util.Stopwatch(None).get_time_remaining() is None
    assert util.Stopwatch(None).has_time_remaining()
    assert not util.Stopwatch(0).has_time_remaining()
    assert 0 < util.Stopwatch(9).get_time_remaining() <= 9
    assert gearman.protocol.get_command_name(1) == "GEARMAN_COMMAND_CAN_DO"
    assert gearman.protocol.get_command_name(9999) == "9999"
    assert gearman.protocol.GEARMAN_COMMAND_SUBMIT_JOB == 7

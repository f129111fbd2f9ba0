"""Odd arguments of constructors and requests. tests/contract passes them to methods."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Final

import pytest

import gearman_anyio
import gearman_sync
from gearman_proto import GearmanError, GearmanJobRequest
from tests.support import odd

from .test_in_memory import make_admin_client, make_client, make_job_server, make_worker

if TYPE_CHECKING:
    from collections.abc import Callable


CLEAR: Final = (TypeError, ValueError, GearmanError, odd.StubbornError)


# Constructors.

MAKERS: dict[str, Callable[..., Any]] = {
    "Client": make_client,
    "Worker": make_worker,
    "AdminClient": make_admin_client,
    "JobServer": make_job_server,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_constructors_refuse_odd_values(kind: str) -> None:
    """Refuse wrong arguments in the constructor, not when the object connects."""
    make = MAKERS[kind]
    refused: set[str] = set()
    names = [name for name in inspect.signature(make).parameters if name != "self"]
    for name in names:
        for value in odd.VALUES:
            # An admin client has exactly one server.
            options: dict[str, Any] = {} if kind == "JobServer" else {"host_list": ["h"]}
            try:
                assert repr(make(**{**options, name: value}))
            except CLEAR:
                refused.add(name)
    # Flags accept any truth value. Only an adapter with the module `ssl` checks the context.
    assert set(names) - refused <= {"exceptions", "ssl_context"}


@pytest.mark.parametrize(
    ("kind", "name", "bad", "good"),
    [
        ("AdminClient", "max_reply_size", [0, -1, "1", None, True, 1e6], [1, 1000]),
        ("AdminClient", "poll_timeout", [True, "1", float("nan")], [None, 0, -1, float("inf")]),
        ("JobServer", "port", [-1, 65536, "1", None, True, 1.0], [0, 65535]),
        ("JobServer", "host", [None, 5, b"h", ["h"]], ["h"]),
    ],
)
def test_value_out_of_range_is_named(kind: str, name: str, bad: list[Any], good: list[Any]) -> None:
    """The tests of the engines cover the options of clients, workers and servers."""
    options: dict[str, Any] = {} if kind == "JobServer" else {"host_list": ["h"]}
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"^{name} is "):
            MAKERS[kind](**options, **{name: value})
    for value in good:
        MAKERS[kind](**options, **{name: value})


@pytest.mark.parametrize("kind", ["GearmanClient", "GearmanWorker", "GearmanAdminClient"])
def test_connect_that_is_not_a_function_is_refused(kind: str) -> None:
    bad: list[Any] = [5, "host", [], 0, False]
    for value in bad:
        with pytest.raises(TypeError, match="connect is a function that opens a stream"):
            getattr(gearman_anyio, kind)(["h"], connect=value)


def test_request_of_odd_values_raises_only_clear_errors() -> None:
    for value in odd.VALUES:
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest(value)
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest.from_handle(value)
        with contextlib.suppress(*CLEAR):
            GearmanJobRequest.from_unique("u", value)
    job = gearman_sync.GearmanJob(None, None, "t", None, b"")
    bad: list[Any] = [0, -1, True, "1", None, 1.5]
    for value in bad:
        with pytest.raises((TypeError, ValueError), match="max_attempts is "):
            GearmanJobRequest(job, max_attempts=value)


def test_enum_name_is_replaced_by_its_value() -> None:
    job = gearman_sync.GearmanJob(None, odd.Name.ODD, odd.Name.ODD, odd.Name.ODD, b"")
    assert (job.handle, job.task, job.unique) == ("odd", "odd", "odd")
    assert {type(name) for name in (job.handle, job.task, job.unique)} == {str}

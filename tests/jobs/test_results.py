"""What becomes of results and exceptions, as packets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder
from gearman_proto.jobs.results import failure_events, result_event, status_event
from gearman_proto.wire.events import WorkComplete, WorkException, WorkFail, WorkStatus, WorkWarning


class Pickle(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object)


class Broken(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        raise ZeroDivisionError


def test_results() -> None:
    assert result_event(b"H:1", NoopEncoder, "out") == WorkComplete(b"H:1", b"out")
    assert result_event(b"H:1", Pickle, [1]) == WorkComplete(b"H:1", pickle.dumps([1]))
    with pytest.raises(TypeError):
        result_event(b"H:1", NoopEncoder, object())


def test_no_result() -> None:
    assert result_event(b"H:1", NoopEncoder, None) == WorkComplete(b"H:1", b"")
    assert result_event(b"H:1", Broken, None) == WorkComplete(b"H:1", b"")
    assert result_event(b"H:1", Pickle, None) == WorkComplete(b"H:1", pickle.dumps(None))


def test_failures() -> None:
    text = b"ValueError: caf\xc3\xa9"
    error = ValueError("café")
    assert failure_events(b"H:1", NoopEncoder, error, exceptions=False) == [
        WorkWarning(b"H:1", text),
        WorkFail(b"H:1"),
    ]
    assert failure_events(b"H:1", NoopEncoder, error, exceptions=True) == [
        WorkException(b"H:1", text)
    ]


def test_failures_that_are_not_to_be_encoded() -> None:
    (event,) = failure_events(b"H:1", Broken, ValueError("\udc80"), exceptions=True)
    assert event == WorkException(b"H:1", b"ValueError: ?")


def test_progress() -> None:
    assert status_event(b"H:1", 1, "2") == WorkStatus(b"H:1", b"1", b"2")
    assert status_event(b"H:1", b"x", 0.5) == WorkStatus(b"H:1", b"x", b"0.5")  # type: ignore[arg-type]

"""What becomes of results and exceptions, as packets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder
from gearman_proto.jobs.results import data_event, failure_events, result_event, status_event
from gearman_proto.wire.packets import (
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)


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


@pytest.mark.parametrize("kind", [WorkData, WorkWarning, WorkComplete, WorkException])
def test_data_event_of_more_than_a_packet_is_refused(kind: Any) -> None:
    assert data_event(kind, b"H:1", NoopEncoder, bytes(96), b"t", 100) == kind(b"H:1", bytes(96))
    with pytest.raises(ValueError, match=r"of 't' has 97 bytes: .* of 100, it can have 96; send"):
        data_event(kind, b"H:1", NoopEncoder, bytes(97), b"t", 100)
    with pytest.raises(ValueError, match="of a job has 97 bytes"):
        data_event(kind, b"H:1", NoopEncoder, bytes(97), max_packet_size=100)


def test_result_event_of_more_than_a_packet_is_refused() -> None:
    with pytest.raises(ValueError, match="the result of 't' has 97 bytes"):
        result_event(b"H:1", NoopEncoder, bytes(97), b"t", 100)


def test_failure_events_cut_a_text_that_fits_no_packet() -> None:
    class Quoting(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> str:
            return f'"{encodable_object}"'

    def sent(encoder: Any, text: str, size: int) -> bytes:
        error = ValueError(text)
        options: Any = {"exceptions": True, "max_packet_size": size}
        (event,) = failure_events(b"H:1", encoder, error, **options)
        assert isinstance(event, WorkException)
        return event.data

    assert sent(NoopEncoder, "x" * 88, 104) == b"ValueError: " + b"x" * 88
    assert sent(NoopEncoder, "x" * 89, 104) == b"ValueError: " + b"x" * 88
    # An encoder's payload can't be cut, so the text is, or goes without the encoder.
    assert sent(Quoting, "x" * 20_000, 20_000) == b'"ValueError: ' + b"x" * 9988 + b'"'
    assert sent(Quoting, "x" * 200, 104) == b"ValueError: " + b"x" * 88
    assert sent(NoopEncoder, "é" * 200, 105) == b"ValueError: " + "é".encode() * 44 + b"\xc3"


def test_progress() -> None:
    assert status_event(b"H:1", 1, "2") == WorkStatus(b"H:1", b"1", b"2")
    assert status_event(b"H:1", b"x", 0.5) == WorkStatus(b"H:1", b"x", b"0.5")  # type: ignore[arg-type]

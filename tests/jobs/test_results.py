"""Packets with results, failures and progress of jobs."""

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


def test_result_event_has_the_encoded_result() -> None:
    assert result_event(b"H:1", NoopEncoder, "out") == WorkComplete(b"H:1", b"out")
    assert result_event(b"H:1", Pickle, [1]) == WorkComplete(b"H:1", pickle.dumps([1]))
    with pytest.raises(TypeError):
        result_event(b"H:1", NoopEncoder, object())


def test_result_event_without_result_is_empty_if_the_encoder_rejects_none() -> None:
    assert result_event(b"H:1", NoopEncoder, None) == WorkComplete(b"H:1", b"")
    assert result_event(b"H:1", Broken, None) == WorkComplete(b"H:1", b"")
    assert result_event(b"H:1", Pickle, None) == WorkComplete(b"H:1", pickle.dumps(None))


def test_failure_events_have_the_text_of_the_exception() -> None:
    text = b"ValueError: caf\xc3\xa9"
    error = ValueError("café")
    assert failure_events(b"H:1", NoopEncoder, error, exceptions=False) == [
        WorkWarning(b"H:1", text),
        WorkFail(b"H:1"),
    ]
    assert failure_events(b"H:1", NoopEncoder, error, exceptions=True) == [
        WorkException(b"H:1", text)
    ]


def test_failure_events_without_working_encoder_send_plain_text() -> None:
    (event,) = failure_events(b"H:1", Broken, ValueError("\udc80"), exceptions=True)
    assert event == WorkException(b"H:1", b"ValueError: ?")


@pytest.mark.parametrize("kind", [WorkData, WorkWarning, WorkComplete, WorkException])
def test_data_event_larger_than_a_packet_is_refused(kind: Any) -> None:
    assert data_event(kind, b"H:1", NoopEncoder, bytes(96), b"t", 100) == kind(b"H:1", bytes(96))
    with pytest.raises(ValueError, match=r"of 't' has 97 bytes: .* of 100, it can have 96; send"):
        data_event(kind, b"H:1", NoopEncoder, bytes(97), b"t", 100)
    with pytest.raises(ValueError, match="of a job has 97 bytes"):
        data_event(kind, b"H:1", NoopEncoder, bytes(97), max_packet_size=100)
    with pytest.raises(ValueError, match="the result of 't' has 97 bytes"):
        result_event(b"H:1", NoopEncoder, bytes(97), b"t", 100)


def test_failure_events_truncate_text_larger_than_a_packet() -> None:
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
    # Truncating an encoded payload would break it: the text is truncated, or sent unencoded.
    assert sent(Quoting, "x" * 20_000, 20_000) == b'"ValueError: ' + b"x" * 9988 + b'"'
    assert sent(Quoting, "x" * 200, 104) == b"ValueError: " + b"x" * 88
    assert sent(NoopEncoder, "é" * 200, 105) == b"ValueError: " + "é".encode() * 44 + b"\xc3"


def test_status_event_accepts_numbers_and_text() -> None:
    assert status_event(b"H:1", 1, "2") == WorkStatus(b"H:1", b"1", b"2")
    assert status_event(b"H:1", b"x", 0.5) == WorkStatus(b"H:1", b"x", b"0.5")  # type: ignore[arg-type]

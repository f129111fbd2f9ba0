"""The errors' own parts."""

from __future__ import annotations

import pickle

from gearman_proto.errors import ServerError, ServerUnavailable


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ServerUnavailable("no server", ["a request"])))
    assert type(error) is ServerUnavailable
    assert str(error) == "no server"
    assert error.job_requests == ["a request"]


def test_what_a_server_says() -> None:
    error = pickle.loads(pickle.dumps(ServerError("QUEUE_ERROR", "it is full")))
    assert (error.code, error.text, str(error)) == (
        "QUEUE_ERROR",
        "it is full",
        "QUEUE_ERROR: it is full",
    )
    assert str(ServerError("ERR")) == "ERR"

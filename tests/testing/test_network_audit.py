"""Audits of an engine's waits."""

from __future__ import annotations

import random

import pytest

from gearman_proto.address import parse_host_list
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.testing.audit import check_wait


def engine() -> ClientEngine:
    return ClientEngine(parse_host_list(["s"]), rng=random.Random(1), wall_clock=lambda: 0.0)


def test_audit_of_a_client_finds_a_wrong_wait() -> None:
    client = engine()
    requests = make_requests([{"task": "f", "data": b""}] * 2)
    prepare(requests, NoopEncoder)
    wait = client.submit(0.0, lambda: None, requests, timeout=1.0)
    check_wait(wait)
    wait.open += 1
    with pytest.raises(AssertionError):
        check_wait(wait)
    wait.open -= 1
    client.handle_timeout(1.0)
    assert wait.timed_out
    check_wait(wait)
    check_wait(client.watch(1.0, lambda: None))
    check_wait(client.connect(1.0, lambda: None, client.pool.servers[0]))


def test_audit_of_an_abandoned_client_finds_a_wrong_wait() -> None:
    client = engine()
    requests = make_requests([{"task": "f", "data": b""}])
    prepare(requests, NoopEncoder)
    wait = client.submit(0.0, lambda: None, requests)
    client.abandon(RuntimeError("bug"))
    check_wait(wait)
    wait.done = False
    with pytest.raises(AssertionError):
        check_wait(wait)

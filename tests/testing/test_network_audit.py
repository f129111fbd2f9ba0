"""Audits of an engine's waits."""

from __future__ import annotations

import random

import pytest

from gearman_proto.address import parse_host_list
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.testing.audit import check_wait


@pytest.mark.parametrize("ends", ["timeout", "abandon"])
def test_audit_of_a_client_finds_a_wrong_wait(ends: str) -> None:
    client = ClientEngine(parse_host_list(["s"]), rng=random.Random(1), wall_clock=lambda: 0.0)
    requests = make_requests([{"task": "f", "data": b""}] * 2)
    prepare(requests, NoopEncoder)
    wait = client.submit(0.0, lambda: None, requests, timeout=1.0)
    check_wait(wait)
    wait.remaining += 1
    with pytest.raises(AssertionError):
        check_wait(wait)
    wait.remaining -= 1
    check_wait(client.watch(0.0, lambda: None))
    check_wait(client.connect(0.0, lambda: None, client.pool.servers[0]))
    if ends == "timeout":
        client.handle_timeout(1.0)
        assert wait.timed_out
    else:
        client.abandon(RuntimeError("bug"))
        wait.done = False
        with pytest.raises(AssertionError):
            check_wait(wait)
        wait.done = True
    check_wait(wait)

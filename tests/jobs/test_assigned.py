"""A job as its worker sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gearman_proto.address import ServerAddress
from gearman_proto.jobs.assigned import WorkerJob
from gearman_proto.jobs.encoder import DataEncoder


class Counting(DataEncoder):
    count = 0

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        cls.count += 1
        return decodable_string.decode()


def test_what_it_is() -> None:
    link = SimpleNamespace(address=ServerAddress("h"), alive=True)
    job = WorkerJob(link, b"H:1", "ü".encode(), None, b"in")
    assert (job.handle, job.task, job.unique, job.data) == ("H:1", "ü", None, b"in")
    assert (job.wire_handle, job.wire_task) == (b"H:1", "ü".encode())
    assert job.connection == ServerAddress("h")


def test_data_is_decoded_when_it_is_first_read_and_once() -> None:
    job = WorkerJob(SimpleNamespace(address=None, alive=True), b"H:1", b"f", b"u", b"in")
    job.encoder = Counting
    assert Counting.count == 0
    assert (job.data, job.data, Counting.count) == ("in", "in", 1)


def test_it_is_lost_with_its_connection_unless_it_has_ended() -> None:
    link = SimpleNamespace(address=None, alive=True)
    job = WorkerJob(link, b"H:1", b"f", b"u", b"in")
    assert not job.is_lost
    link.alive = False
    assert job.is_lost
    job.ended = True
    assert not job.is_lost

"""Notices about functions that no worker has registered."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.engines.admin import AdminLink
from gearman_proto.engines.client import unserved
from gearman_proto.engines.client.cancelling import ANSWER_TIMEOUT
from gearman_proto.wire.packets import (
    JobCreated,
    StatusRes,
    TextLine,
    WorkComplete,
    WorkData,
    WorkFail,
)

from .harness import Peer, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.waits import RequestsWait
    from gearman_proto.jobs.request import GearmanJobRequest

SECONDS = 10.0
STATUS = TextLine(b"status")
NOTICE = "no worker of s0:4730 has registered the function 'task'; its jobs wait until one does"


def world(**options: Any) -> World:
    return World(**{"warn_after": SECONDS, "heartbeat": None, "exceptions": False, **options})


def waiting(
    world: World, *tasks: str, first: int = 1, **job: Any
) -> tuple[Peer, RequestsWait, list[GearmanJobRequest]]:
    """Return the server, and a call that waits for a job of each of `tasks`."""
    requests = [world.request(task, **job) for task in tasks]
    wait = world.submit(*requests)
    server = next(peer for peer in world.peers if not isinstance(peer.link, AdminLink))
    if not server.link.is_up:
        server.up()
    server.take()
    server.send(*(JobCreated(b"H:%d" % number) for number, _ in enumerate(requests, first)))
    return server, wait, requests


def admins(world: World) -> list[Peer]:
    return [peer for peer in world.alive() if isinstance(peer.link, AdminLink)]


def asked(world: World) -> Peer:
    """Return the server of the admin connection after it has received the question."""
    admin = world.admin()
    assert admin.take() == [STATUS]
    return admin


def answer(admin: Peer, *rows: str) -> None:
    admin.send(*(TextLine(row.encode(), ending=b"\n") for row in (*rows, ".")))


def test_function_without_workers_is_noticed_once() -> None:
    w = world()
    server, _, _ = waiting(w, "task")
    w.sleep(SECONDS - 1)
    assert not admins(w)
    w.sleep(1)
    answer(asked(w), "other\t0\t0\t5", "task\t1\t0\t0")
    assert list(w.engine.notices) == [NOTICE]
    # The connection was only for this question.
    assert not admins(w)
    for number in range(3):
        waiting(w, "task", first=2 + number)
        w.sleep(2 * SECONDS)
    assert not admins(w)
    assert server.take() == []
    assert list(w.engine.notices) == [NOTICE]


def test_connection_that_a_cancellation_has_used_stays_open() -> None:
    w = world()
    _, _, (request, _) = waiting(w, "task", "task")
    w.cancel(request)
    admin = w.admin()
    admin.take()
    admin.send(StatusRes(b"H:1", b"1", b"0", b"0", b"0"), TextLine(b"OK"))
    w.sleep(SECONDS)
    answer(asked(w))
    assert admins(w) == [admin]


@pytest.mark.parametrize(
    ("rows", "notices"),
    [
        (["task\t1\t0\t1"], []),
        # The worker has registered, taken the job and unregistered.
        (["task\t1\t1\t0"], []),
        ([], [NOTICE]),
        (["tusk\t0\t0\t0", "taks\t0\t0\t1"], [f"{NOTICE} (a worker has registered 'taks')"]),
    ],
)
def test_answer_decides(rows: list[str], notices: list[str]) -> None:
    w = world()
    waiting(w, "task")
    w.sleep(SECONDS)
    answer(asked(w), *rows)
    assert list(w.engine.notices) == notices


@pytest.mark.parametrize(
    ("task", "served", "suggestion"),
    [
        ("resise", "resize", " (a worker has registered 'resize')"),
        ("resise", "rotate", ""),
        ("resise", "resise" * 100, ""),
        ("r" * 101, "r" * 100, ""),
    ],
)
def test_similar_function_with_workers_is_suggested(
    task: str, served: str, suggestion: str
) -> None:
    w = world()
    waiting(w, task)
    w.sleep(SECONDS)
    answer(asked(w), f"{task}\t1\t0\t0", "resist\t1\t0\t0", f"{served}\t0\t0\t2")
    (notice,) = w.engine.notices
    assert notice.endswith(f"its jobs wait until one does{suggestion}")
    assert len(notice) < 300


@pytest.mark.parametrize("warn_after", [None, SECONDS])
def test_nothing_is_asked_if_off_or_if_jobs_end_or_have_updates(warn_after: float | None) -> None:
    w = world(warn_after=warn_after)
    server, _, _ = waiting(w, "one", "two", "three")
    if warn_after is not None:
        server.send(WorkData(b"H:1", b"half"), WorkComplete(b"H:2", b""), WorkFail(b"H:3"))
    w.sleep(SECONDS)
    w.sleep(SECONDS)
    assert not admins(w)
    assert not w.engine.notices


def test_without_jobs_no_deadline_is_left() -> None:
    w = world()
    server, wait, _ = waiting(w, "task")
    server.send(WorkComplete(b"H:1", b""))
    assert wait.done
    w.release(wait)
    w.sleep(SECONDS)
    assert w.engine.next_deadline() is None
    # A later job sets the timer again.
    waiting(w, "task", first=2)
    w.sleep(SECONDS)
    asked(w)


def test_jobs_without_a_waiting_call_are_checked_when_a_call_waits() -> None:
    w = world()
    _, wait, requests = waiting(w, "task")
    w.release(wait)
    w.sleep(SECONDS)
    w.sleep(SECONDS)
    assert not admins(w)
    w.wait_completed(*requests)
    w.sleep(SECONDS)
    answer(asked(w))
    assert list(w.engine.notices) == [NOTICE]


def test_call_that_ends_before_the_answer_gets_a_notice_while_the_job_waits() -> None:
    w = world()
    _, wait, _requests = waiting(w, "task")
    w.sleep(SECONDS)
    admin = asked(w)
    w.release(wait)
    answer(admin)
    assert list(w.engine.notices) == [NOTICE]


@pytest.mark.parametrize("end", ["complete", "data", "lost", "dropped", "closed"])
def test_job_that_changes_before_the_answer_gets_no_notice(end: str) -> None:
    w = world()
    server, wait, requests = waiting(w, "task")
    w.sleep(SECONDS)
    admin = asked(w)
    if end == "complete":
        server.send(WorkComplete(b"H:1", b""))
    elif end == "data":
        server.send(WorkData(b"H:1", b"half"))
    elif end == "lost":
        server.lose()
    elif end == "dropped":
        w.release(wait)
        wait.requests = wait.members = ()
        requests.clear()
        gc.collect()
    else:
        w.close()
    answer(admin)
    assert not w.engine.notices


@pytest.mark.parametrize(
    "fail",
    [
        lambda _world, admin: admin.send(TextLine(b"ERR unknown_command what%3F")),
        lambda _world, admin: admin.send_raw(b"nonsense without end" * 100_000),
        lambda _world, admin: answer(admin, "no row"),
        lambda _world, admin: admin.lose(),
        lambda world, _admin: world.sleep(ANSWER_TIMEOUT),
    ],
    ids=["unknown command", "endless", "no row", "lost", "silent"],
)
def test_server_without_an_answer_changes_nothing(fail: Callable[[World, Peer], None]) -> None:
    w = world()
    server, wait, (request,) = waiting(w, "task")
    w.sleep(SECONDS)
    fail(w, asked(w))
    assert not w.engine.notices
    assert not w.engine.pool.servers[0].failures
    assert w.engine.pool.servers[0].error is None
    # The function is not asked about again.
    w.sleep(10 * SECONDS)
    assert not admins(w)
    server.send(WorkComplete(b"H:1", b"out"))
    assert wait.done
    assert request.result == b"out"


def test_refused_admin_connection_changes_nothing() -> None:
    w = world()
    server, wait, _ = waiting(w, "task")
    w.sleep(SECONDS)
    (admin,) = admins(w)
    admin.refuse()
    server.send(WorkComplete(b"H:1", b"out"))
    assert wait.done
    assert wait.error is None
    assert w.engine.pool.servers[0].error is None


def test_each_look_asks_only_about_new_functions() -> None:
    w = world()
    waiting(w, "a", "b")
    w.sleep(SECONDS / 2)
    waiting(w, "c", "a", first=3)
    w.sleep(SECONDS / 2)
    answer(asked(w), "c\t0\t0\t0")
    assert [notice.count("'a'") for notice in w.engine.notices] == [0, 1]
    w.sleep(SECONDS)
    answer(asked(w))
    assert "'c'" in w.engine.notices[-1]
    assert len(w.engine.notices) == 3


def test_function_is_reported_by_one_server_only() -> None:
    w = world(servers=2, routing="unique")
    w.submit(*(w.request("task", unique=str(number)) for number in range(20)))
    w.act()
    for peer in list(w.alive()):
        peer.up()
        jobs = peer.take()
        peer.send(*(JobCreated(b"H:%d" % number) for number, _ in enumerate(jobs)))
    w.sleep(SECONDS)
    peers = admins(w)
    assert len(peers) == 2
    for peer in peers:
        peer.up()
        peer.take()
        answer(peer)
    assert len(w.engine.notices) == 1


def test_question_for_a_cancellation_keeps_the_connection() -> None:
    w = world()
    _, _, requests = waiting(w, "task")
    w.sleep(SECONDS)
    admin = asked(w)
    w.cancel(*requests)
    answer(admin)
    assert admins(w) == [admin]
    assert len(admin.take()) == 2


def test_changed_task_and_number_of_functions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unserved, "MAX_FUNCTIONS", 2)
    w = world()
    _, _, requests = waiting(w, "a", "b", "c")
    requests[0].task = 7  # type: ignore[assignment]
    w.sleep(SECONDS)
    answer(asked(w))
    waiting(w, "d", first=4)
    w.sleep(SECONDS)
    assert not admins(w)
    assert len(w.engine.notices) == 2
    assert w.engine.next_deadline() is None


def test_wrong_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="warn_after"):
        world(warn_after=0)

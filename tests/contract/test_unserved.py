"""Warnings about functions that no worker has registered."""

from __future__ import annotations

import logging

import pytest

from .kit import Kit, Server, echo


class Records(logging.Handler):
    """The records of a logger, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.getMessage()}")


@pytest.mark.both_servers
async def test_waiting_call_logs_a_function_without_workers_once(
    kit: Kit, server: Server, task: str
) -> None:
    client = await kit.client(server.address, warn_after=1.0)
    records = Records()
    logger = logging.getLogger("gearman")
    logger.addHandler(records)
    try:
        calls = [await kit.spawn(client.submit_job, task, b"%d" % number) for number in range(2)]
        await kit.eventually(lambda: records.messages, "the warning")
        await kit.start_worker(server.address, tasks={task: echo})
        assert [(await call.result()).result for call in calls] == [b"0", b"1"]
    finally:
        logger.removeHandler(records)
    host, port = server.address
    (message,) = records.messages
    assert message == (
        f"WARNING no worker of {host}:{port} has registered the function {task!r}; "
        "its jobs wait until one does"
    )

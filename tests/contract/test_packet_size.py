"""`max_packet_size` holds for jobs as well: none is sent that would not be received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .kit import Kit, Server

SMALL = 1000


@pytest.mark.parametrize("count", [1, 2000])
async def test_submit_of_a_job_too_large_for_a_packet_raises_and_sends_nothing(
    kit: Kit, server: Server, task: str, count: int
) -> None:
    client = await kit.client(server.address, max_packet_size=SMALL)
    jobs = [{"task": task, "data": b"small"}] * (count - 1) + [{"task": task, "data": bytes(SMALL)}]
    with pytest.raises(ValueError, match="has 1000 bytes: with a max_packet_size of 1000"):
        await client.submit_multiple_jobs(jobs, background=True)
    assert not client.connection_list[0].connected
    room = SMALL - 129 - len(task)
    request = await client.submit_job(task, bytes(room), unique="u" * 63, background=True)
    assert request.complete
    gate = kit.gate(opened=True)
    await kit.start_worker(server.address, tasks={task: gate}, max_packet_size=SMALL)
    await kit.eventually(lambda: gate.order == [bytes(room)])

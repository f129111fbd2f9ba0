"""The core in a program that draws frames: one call per frame, which never waits.

    python examples/frame_loop.py [--server HOST:PORT] [--jobs N] [--size BYTES] [--timeout S]

`Jobs.step` is that call. The adapter is that of own_loop.py. In pygame, call it before
`clock.tick(60)`. In Tkinter:

    def frame():
        for request in jobs.step():
            label["text"] = f"{request.state} {request.result}"
        root.after(16, frame)

The rest of the program submits jobs for the function `reverse`, and draws a line of text per frame.
With --server, any worker of that server does the jobs. Without it, the program runs its own job
server and worker in threads.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from own_loop import Adapter, client, clock, own_server, wake

from gearman_proto import JOB_COMPLETE, NoopEncoder, ServerUnavailable, make_requests, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto import GearmanJobRequest

FRAME = 1 / 60
# Maximum time for the jobs in a frame, in seconds. The rest of the frame is for drawing.
BUDGET = FRAME / 4


class Jobs:
    """Requests that make progress once per frame."""

    def __init__(self, adapter: Adapter, requests: list[GearmanJobRequest], timeout: float) -> None:
        self.adapter = adapter
        engine: Any = adapter.engine
        prepare(requests, NoopEncoder)
        # The subscription waits for the requests, so the submit's own Wait is not needed.
        engine.release(engine.submit(clock(), wake, requests), clock())
        self.subscription = engine.as_completed(clock(), wake, requests, timeout=timeout)

    def step(self) -> Iterator[GearmanJobRequest]:
        """Send and receive what is possible without waiting, and yield the requests that ended."""
        end = clock() + BUDGET
        self.adapter.pump()
        while (ready := self.adapter.selector.select(0)) and clock() < end:
            for key, events in ready:
                key.data(events)
            self.adapter.pump()
        self.adapter.tell(self.adapter.engine.handle_timeout)
        self.adapter.pump()
        while (request := self.subscription.take()) is not None:
            yield request

    @property
    def done(self) -> bool:
        """True if all requests have ended, or the timeout has passed."""
        return bool(self.subscription.done)


def main() -> int:
    parser = argparse.ArgumentParser(description="Reverse some bytes while frames are drawn.")
    parser.add_argument("--server", metavar="HOST:PORT", help="in place of our own")
    parser.add_argument("--jobs", type=int, default=8, metavar="N", help="how many; 8")
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of each; 1000000")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    arguments = parser.parse_args()
    jobs = [{"task": "reverse", "data": b"x" * arguments.size}] * arguments.jobs
    try:
        with contextlib.ExitStack() as stack:
            server = arguments.server or stack.enter_context(own_server())
            adapter = stack.enter_context(client(server))
            return run(Jobs(adapter, make_requests(jobs), arguments.timeout), len(jobs))
    except (OSError, ValueError) as error:
        return fail(error, 2)
    except ServerUnavailable as error:
        return fail(error, 3)


def run(jobs: Jobs, count: int) -> int:
    done = frames = 0
    while not jobs.done:
        began = clock()
        for request in jobs.step():
            if isinstance(request.error, ServerUnavailable):
                raise request.error
            done += request.state == JOB_COMPLETE
        frames += 1
        print(f"frame {frames}: {done} of {count} jobs done", flush=True)
        time.sleep(max(began + FRAME - clock(), 0.0))
    return 0 if done == count else 1


def fail(error: Exception, status: int) -> int:
    print(f"frame_loop: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Blocking calls in gevent's greenlets: a worker, and many greenlets that share a client.

    python examples/gevent_client.py [--server HOST:PORT] [--jobs N] [--timeout S]

gevent replaces the standard library's sockets and threads, and must do so before anything else is
imported. Then `gearman_sync` needs no adapter: a call blocks its greenlet only.

Each of N greenlets submits a job for the function `reverse` and waits for it. Meanwhile, another
greenlet counts. With --server, the program uses that server, and otherwise its own job server. The
worker is always its own.
"""

# ruff: noqa: E402 - gevent comes first

try:
    from gevent import monkey
except ModuleNotFoundError:
    raise SystemExit("this example needs gevent: pip install gevent") from None

monkey.patch_all()

import argparse
import contextlib
import sys

import gevent

import gearman_sync as gearman


def main() -> int:
    parser = argparse.ArgumentParser(description="Reverse some bytes in Gearman jobs.")
    parser.add_argument("--server", metavar="HOST:PORT", help="in place of our own")
    parser.add_argument("--jobs", type=int, default=100, metavar="N", help="how many; 100")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    arguments = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            server = arguments.server
            if server is None:
                server = str(stack.enter_context(gearman.JobServer()).address)
            return run(server, arguments.jobs, arguments.timeout)
    except (OSError, ValueError) as error:
        return fail(error, 2)
    except gearman.errors.ServerUnavailable as error:
        return fail(error, 3)


def run(server: str, jobs: int, timeout: float) -> int:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.001)
            ticks += 1

    def reverse(_worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        gevent.sleep(0.01)  # Other greenlets run meanwhile.
        return bytes(job.data)[::-1]

    with gearman.GearmanAdminClient([server]) as admin:
        admin.ping_server()  # If there is no server, this raises here, and not in each greenlet.
    with gearman.GearmanWorker([server], max_jobs=10) as worker:
        worker.register_task("reverse", reverse)
        work, counter = gevent.spawn(worker.work), gevent.spawn(tick)
        with gearman.GearmanClient([server]) as client:

            def submit(number: int) -> bool:
                data = b"job %d" % number
                request = client.submit_job("reverse", data, poll_timeout=timeout)
                return bool(request.result == data[::-1])

            calls = [gevent.spawn(submit, number) for number in range(jobs)]
            done = sum(call.get() for call in calls)
        worker.stop()
        work.join()
        counter.kill()
    print(f"{done} of {jobs} jobs done; another greenlet has counted to {ticks}")
    return 0 if done == jobs and ticks else 1


def fail(error: Exception, status: int) -> int:
    print(f"gevent_client: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

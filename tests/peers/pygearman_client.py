"""A client of pygearman: the arguments are host, port and the seconds for a job."""

from __future__ import annotations

import sys

import gearman

from tests.peers.scripts import Answer, Submit, serve


def main(host: str, port: str, patience: str) -> None:
    client = gearman.GearmanClient([(host, int(port))])

    def submit(job: Submit) -> Answer:
        request = client.submit_job(
            job.task,
            job.data,
            priority={
                None: gearman.PRIORITY_NONE,
                "high": gearman.PRIORITY_HIGH,
                "low": gearman.PRIORITY_LOW,
            }[job.priority],
            background=job.background,
            # Without a timeout, pygearman does not wait at all.
            poll_timeout=float(patience),
        )
        assert not request.timed_out
        return Answer(request.state == gearman.JOB_FAILED, request.result)

    serve(submit)


if __name__ == "__main__":
    main(*sys.argv[1:])

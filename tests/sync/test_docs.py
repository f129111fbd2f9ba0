"""The examples of python-gearman's documentation run unchanged, except for `print` as a function.

The ports are replaced, and `otherhost` resolves to the local host.
"""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_sync.testing import ScriptedWorker, echo
from tests.support import Gearmand, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = """
def check_request_status(job_request):
    if job_request.complete:
        print("Job %s finished!  Result: %s - %s" % (job_request.job.unique, job_request.state, job_request.result))
    elif job_request.timed_out:
        print("Job %s timed out!" % job_request.unique)
    elif job_request.state == JOB_UNKNOWN:
        print("Job %s connection failed!" % job_request.unique)
"""  # noqa: E501 - as it stands

SIMPLE = """
gm_client = gearman.GearmanClient(['localhost:4730', 'otherhost:4730'])

# See gearman/job.py to see attributes on the GearmanJobRequest
# Defaults to PRIORITY_NONE, background=False (synchronous task), wait_until_complete=True
completed_job_request = gm_client.submit_job("task_name", "arbitrary binary data")
check_request_status(completed_job_request)
"""

BACKGROUND = """
gm_client = gearman.GearmanClient(['localhost:4730', 'otherhost:4730'])

# See gearman/job.py to see attributes on the GearmanJobRequest
submitted_job_request = gm_client.submit_job("task_name", "arbitrary binary data", priority=gearman.PRIORITY_HIGH, background=True)

check_request_status(submitted_job_request)
"""  # noqa: E501

MULTIPLE = """
import time
gm_client = gearman.GearmanClient(['localhost:4730'])

list_of_jobs = [dict(task="task_name", data="binary data"), dict(task="other_task", data="other binary data")]
submitted_requests = gm_client.submit_multiple_jobs(list_of_jobs, background=False, wait_until_complete=False)

# Once we know our jobs are accepted, we can do other stuff and wait for results later in the function
# Similar to multithreading and doing a join except this is all done in a single process
time.sleep(1.0)

# Wait at most 5 seconds before timing out incomplete requests
completed_requests = gm_client.wait_until_jobs_completed(submitted_requests, poll_timeout=5.0)
for completed_job_request in completed_requests:
    check_request_status(completed_job_request)
"""  # noqa: E501

RECOVERING_1 = """
import time
gm_client = gearman.GearmanClient(['localhost:4730'])

list_of_jobs = [dict(task="task_name", data="task binary string"), dict(task="other_task", data="other binary string")]
failed_requests = gm_client.submit_multiple_jobs(list_of_jobs, background=False)

# Let's pretend our assigned requests' Gearman servers all failed
assert all(request.state == JOB_UNKNOWN for request in failed_requests), "All connections didn't fail!"
"""  # noqa: E501

RECOVERING_2 = """
# Let's pretend our assigned requests' don't fail but some simply timeout
retried_connection_failed_requests = gm_client.submit_multiple_requests(failed_requests, wait_until_complete=True, poll_timeout=1.0)
"""  # noqa: E501

# The documentation has a mistake: it does not define `retried_requests`.
RECOVERING_SLIP = """
retried_requests = retried_connection_failed_requests
"""

RECOVERING_3 = """
timed_out_requests = [job_request for job_request in retried_requests if job_request.timed_out]

# For our timed out requests, lets wait a little longer until they're complete
retried_timed_out_requests = gm_client.submit_multiple_requests(timed_out_requests, wait_until_complete=True, poll_timeout=4.0)
"""  # noqa: E501

ENCODER = """
# By default, GearmanClient's can only send off byte-strings
# If we want to be able to send out Python objects, we can specify a data encoder
# This will automatically convert byte strings <-> Python objects for ALL commands that have the 'data' field
#
# See http://gearman.org/index.php?id=protocol for client commands that send/receive 'opaque data'
import pickle

class PickleDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return pickle.loads(decodable_string)

class PickleExampleClient(gearman.GearmanClient):
    data_encoder = PickleDataEncoder

my_python_object = {'hello': 'there'}

gm_client = PickleExampleClient(['localhost:4730'])
gm_client.submit_job("task_name", my_python_object)
"""  # noqa: E501


@pytest.fixture
def servers(start_gearmand: Callable[..., Gearmand]) -> list[Gearmand]:
    """The servers for localhost and otherhost."""
    return [start_gearmand(), start_gearmand()]


@pytest.fixture
def run(servers: list[Gearmand]) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A function that runs an example and returns the namespace, which all examples share."""
    names: dict[str, Any] = {"gearman": gearman, "JOB_UNKNOWN": gearman.JOB_UNKNOWN}

    def run(text: str) -> dict[str, Any]:
        text = text.replace("localhost:4730", f"localhost:{servers[0].port}")
        text = text.replace("otherhost:4730", f"localhost:{servers[1].port}")
        exec(text, names)
        return names

    run(CHECK)
    yield run
    if "gm_client" in names:
        names["gm_client"].shutdown()


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[gearman.GearmanJobRequest]:
    """A list of all requests that clients submit."""
    requests: list[gearman.GearmanJobRequest] = []
    real = gearman.GearmanClient.submit_multiple_requests

    def submit_multiple_requests(client: Any, job_requests: Any, **kwargs: Any) -> Any:
        requests.extend(job_requests)
        return real(client, job_requests, **kwargs)

    monkeypatch.setattr(gearman.GearmanClient, "submit_multiple_requests", submit_multiple_requests)
    return requests


def wait_until_acknowledged(requests: list[gearman.GearmanJobRequest]) -> None:
    eventually(lambda: requests and all(r.state == gearman.JOB_CREATED for r in requests))


@pytest.fixture
def workers(
    servers: list[Gearmand], start_worker: Callable[..., ScriptedWorker]
) -> list[ScriptedWorker]:
    functions = {"task_name": echo, "other_task": echo}
    return [start_worker(server.address, functions) for server in servers]


def test_simple_job(
    run: Callable[[str], dict[str, Any]],
    workers: list[ScriptedWorker],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = run(SIMPLE)["completed_job_request"]
    assert capsys.readouterr().out == (
        f"Job {request.unique} finished!  Result: COMPLETE - {b'arbitrary binary data'!r}\n"
    )


def test_background_job(
    run: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    request = run(BACKGROUND)["submitted_job_request"]
    assert capsys.readouterr().out == (f"Job {request.unique} finished!  Result: CREATED - None\n")


def test_multiple_jobs(
    run: Callable[[str], dict[str, Any]],
    workers: list[ScriptedWorker],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    requests = run(MULTIPLE)["completed_requests"]
    assert capsys.readouterr().out == "".join(
        f"Job {request.unique} finished!  Result: COMPLETE - {data!r}\n"
        for request, data in zip(requests, (b"binary data", b"other binary data"))
    )


def test_recovering(
    run: Callable[[str], dict[str, Any]],
    servers: list[Gearmand],
    submitted: list[gearman.GearmanJobRequest],
    start_worker: Callable[..., ScriptedWorker],
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = spawn(run, RECOVERING_1)
    wait_until_acknowledged(submitted)
    servers[0].kill()
    example.result(20)
    servers[0].start()
    start_worker(servers[0].address, {"task_name": echo})
    names = run(RECOVERING_2)
    run(RECOVERING_SLIP)
    timed_out = spawn(run, RECOVERING_3)
    start_worker(servers[0].address, {"other_task": echo})
    timed_out.result(20)
    assert [request.job.task for request in names["timed_out_requests"]] == ["other_task"]
    assert [request.result for request in names["retried_requests"]] == [
        b"task binary string",
        b"other binary string",
    ]
    run("for request in failed_requests: check_request_status(request)")
    assert capsys.readouterr().out.count("finished!  Result: COMPLETE") == 2


def test_failed_and_timed_out_requests_have_distinct_flags(
    run: Callable[[str], dict[str, Any]],
    servers: list[Gearmand],
    submitted: list[gearman.GearmanJobRequest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = spawn(run, RECOVERING_1)
    wait_until_acknowledged(submitted)
    servers[0].kill()
    names = example.result(20)
    run("check_request_status(failed_requests[0])")
    assert capsys.readouterr().out == (
        f"Job {names['failed_requests'][0].unique} connection failed!\n"
    )
    servers[0].start()
    run("late = gm_client.submit_job('task_name', 'data', poll_timeout=0)")
    run("check_request_status(late)")
    assert capsys.readouterr().out == f"Job {names['late'].unique} timed out!\n"


def test_encoder(run: Callable[[str], dict[str, Any]], workers: list[ScriptedWorker]) -> None:
    names = run(ENCODER)
    request = names["gm_client"].submit_job("task_name", names["my_python_object"])
    assert request.result == {"hello": "there"}
    assert [pickle.loads(data) for data in workers[0].order] == [{"hello": "there"}] * 2

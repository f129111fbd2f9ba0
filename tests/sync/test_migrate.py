"""What ``python -m gearman_sync.migrate`` says, and what it does not say."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gearman_proto
from gearman_proto.jobs.submitting import JOB_KEYS
from gearman_sync.cli.migrate import _families as families
from gearman_sync.cli.migrate import _rules as rules
from gearman_sync.cli.migrate._analysis import Program
from gearman_sync.cli.migrate._report import main
from gearman_sync.cli.migrate._sources import Source

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "migrating.md"

CLIENT = "import gearman\nclient = gearman.GearmanClient(['localhost:4730'])\n"
REQUEST = CLIENT + "request = client.submit_job('task', 'data')\n"
WORKER = "import gearman\nworker = gearman.GearmanWorker(['localhost:4730'])\n"
ADMIN = "import gearman\nadmin = gearman.GearmanAdminClient(['localhost:4730'])\n"


def callback(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{WORKER}def do(worker, job):\n{lines}worker.register_task('task', do)\n"


#: For each rule programs that it applies to, and ones that look like them, where nothing differs.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "import-module": (
        [
            "import gearman.errors",
            "from gearman.client import GearmanClient",
            "from gearman import connection_manager",
            "import gearman\nprint(gearman.admin_client.GearmanAdminClient)",
            "import python3_gearman.util",
        ],
        [
            "import gearman",
            "import gearman as g",
            "from gearman import GearmanClient, JOB_COMPLETE, errors",
            "import gearman\nprint(gearman.errors.ServerUnavailable)",
            "from .gearman.client import GearmanClient",
        ],
    ),
    "import-inner": (
        [
            "import gearman.command_handler",
            "from gearman.io import get_connection_poller",
            "from gearman.client import GearmanClientCommandHandler",
            "from gearman import compat",
        ],
        ["import gearman", "import io, compat\nimport gearman"],
    ),
    "import-unknown": (
        [
            "import gearman.gizmo",
            "from gearman.errors import Oops",
            "from gearman import Oops",
        ],
        ["import gearman\nimport gizmo", "from gearman import *"],
    ),
    "import-distribution": (
        ["import pygearman", "from gearman3 import GearmanClient"],
        ["import gearman as pygearman"],
    ),
    "text-module": (
        [
            "import gearman\npatch('gearman.client.GearmanClient')",
            "import gearman\nimportlib.import_module('gearman.errors')",
        ],
        [
            "import gearman\npatch('gearman.GearmanClient')",
            "import gearman\nprint('gearman.client')",
        ],
    ),
    "text-inner": (
        [
            "import gearman\nmock.patch('gearman.io.get_connection_poller')",
            "import gearman\nmock.patch('gearman.client.GearmanClient.send_job_request')",
        ],
        ["import gearman\nmock.patch('program.io.get_connection_poller')"],
    ),
    "api-1x": (
        [
            "from gearman import Task, Taskset",
            "from gearman.task import Task",
            "import gearman\nclient.do_taskset(gearman.Taskset([]))",
            CLIENT + "client.do_task(1)",
            WORKER + "worker.register_function('echo', len)",
        ],
        ["import gearman\nrpc.register_function(len)", "from celery import Task\nimport gearman"],
    ),
    "python-2": (
        [
            "import gearman\nprint 'hello'",
            "import gearman\ntry:\n    pass\nexcept ValueError, error:\n    pass",
            "import gearman\nisinstance('x', basestring)",
            "import gearman\nfor key, value in {}.iteritems():\n    pass",
        ],
        [
            "print 'hello'",
            "from libra.gear import Worker\nprint 'hello'",
            "import gearman\ntry:\n    basestring\nexcept NameError:\n    basestring = str",
            "import gearman\nimport six\nsix.iteritems({})",
        ],
    ),
    "inner-used": (
        [
            CLIENT + "client.send_job_request(None)",
            "import gearman\nself.connection_to_handler_map",
            "import gearman\ngearman.GearmanClient.command_handler_class = None",
            ADMIN + "admin.wait_until_server_responds(1)",
            WORKER + "worker.connection_list[0].gearman_socket",
            WORKER + "worker.handle_error(None)",
        ],
        ["import gearman\nserver.handle_error(None)", "self.connection_to_handler_map"],
    ),
    "inner-overridden": (
        [
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n    def handle_read(self, c):\n"
                "        pass"
            ),
            "import gearman\nclass W(gearman.GearmanWorker):\n    job_class = None",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n"
                "    def establish_worker_connections(self):\n        return []"
            ),
        ],
        [
            "import gearman\nclass Server:\n    def handle_read(self, c):\n        pass",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n    def after_poll(self, any):\n"
                "        return True"
            ),
        ],
    ),
    "monkey-patch": (
        ["import gearman\ngearman.util.select = None\n", "import gearman\ngearman.client.X = 1"],
        [
            "import gearman\nmine.select = None",
            "import gearman\nworker = gearman.GearmanWorker()\nworker.logger = None",
        ],
    ),
    "attribute-unknown": (
        [
            CLIENT + "client.submit()",
            "import gearman\ngearman.frobnicate()",
            REQUEST + "request.ok",
        ],
        [
            CLIENT + "client.mine = 1\nprint(client.mine)",
            CLIENT + "client.as_completed([])",
            "import gearman\ndef f(pool):\n    return pool.submit_job('t', 'd').ok",
            (
                "import gearman\nclass C(gearman.GearmanClient):\n    def submit_job(self, task):\n"
                "        return 1\nC().submit_job('t').ok"
            ),
        ],
    ),
    "argument-unknown": (
        [
            CLIENT + "client.submit_job('task', 'data', timeout=3)",
            "import gearman\ngearman.GearmanClient(hosts=[])",
        ],
        [
            CLIENT + "client.submit_job('task', 'data', poll_timeout=3)",
            CLIENT + "client.submit_job('task', 'data', **options)",
            (
                "import gearman\nclass C(gearman.GearmanClient):\n"
                "    def __init__(self, mine):\n        pass\nC(mine=1)"
            ),
        ],
    ),
    "worker-poll": (
        [
            WORKER + "worker.establish_worker_connections()",
            WORKER + "worker.poll_connections_until_stopped([], None)",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n"
                "    def establish_worker_connections(self):\n        return []\n"
                "    def work(self):\n        pass"
            ),
        ],
        [WORKER + "worker.work()", CLIENT + "client.poll_connections_until_stopped([], None)"],
    ),
    "request-queue": (
        [CLIENT + "client.request_to_rotating_connection_queue.pop(1, None)"],
        [CLIENT + "queue.pop(1, None)"],
    ),
    "wait-any": (
        [CLIENT + "client.wait_until_any_job_completed([])"],
        [
            (
                "import gearman\nclass C(gearman.GearmanClient):\n"
                "    def wait_until_any_job_completed(self, requests):\n        return requests\n"
                "C().wait_until_any_job_completed([])"
            ),
        ],
    ),
    "connection-class": (
        [
            "import gearman\ngearman.connection.GearmanConnection.connect_timeout = 3",
            "import gearman\nclass W(gearman.GearmanWorker):\n    connection_class = None",
            "import gearman.connection\nclass C(gearman.connection.GearmanConnection):\n    pass",
        ],
        ["import gearman\nfrom program import GearmanConnection"],
    ),
    "connection-list": (
        [
            CLIENT + "client.add_connection('otherhost')",
            CLIENT + "client.connection_list = []",
            CLIENT + "client.connection_list.append(1)",
            CLIENT + "client.connection_list += [1]",
        ],
        [CLIENT + "print(len(client.connection_list))", CLIENT + "pool.connection_list = []"],
    ),
    "connection-parts": (
        [CLIENT + "for connection in client.connection_list:\n    connection.close()"],
        [CLIENT + "for connection in client.connection_list:\n    print(connection.connected)"],
    ),
    "admin-connection": (
        [
            ADMIN + "admin.establish_admin_connection()",
            ADMIN + "print(admin.current_connection)",
        ],
        [ADMIN + "admin.ping_server()", ADMIN + "print(pool.current_connection)"],
    ),
    "job-class": (
        [
            CLIENT + "client.job_request_class(client.job_class(None, None, 't', None, ''))",
            "import gearman\nclass C(gearman.GearmanClient):\n    job_request_class = None",
        ],
        ["import gearman\nclass Other:\n    job_request_class = None"],
    ),
    "register-keyword": (
        [callback("return ''") + "worker.register_task('b', callback_function=do)"],
        [callback("return ''") + "worker.register_task('b', callback=do)"],
    ),
    "job-to-dict": (
        [callback("return job.to_dict()"), REQUEST + "request.job.to_dict()"],
        [callback("return frame.to_dict()")],
    ),
    "job-empty": (
        ["import gearman\ngearman.job.GearmanJob(None, None, None, None, '')"],
        ["import gearman\ngearman.job.GearmanJob(None, None, 'task', None, '')"],
    ),
    "request-of-anything": (
        [
            "import gearman\ngearman.job.GearmanJobRequest(Mock())",
            "import gearman\ngearman.job.GearmanJobRequest(job, max_attempts=0)",
        ],
        ["import gearman\ngearman.job.GearmanJobRequest(job, max_attempts=1)"],
    ),
    "request-assigned": (
        [REQUEST + "request.result = 'done'", REQUEST + "request.exception = None"],
        [REQUEST + "request.mine = 'done'", REQUEST + "self.result = request"],
    ),
    "unique-false": (
        [CLIENT + "client.submit_job('task', 'data', unique=False)"],
        [CLIENT + "client.submit_job('task', 'data', unique=None)"],
    ),
    "request-job-assigned": (
        [REQUEST + "request.gearman_job = None"],
        [REQUEST + "print(request.gearman_job)"],
    ),
    "updates-changed": (
        [REQUEST + "request.data_updates.append('x')", REQUEST + "request.warning_updates = []"],
        [REQUEST + "request.data_updates.popleft()", REQUEST + "updates.append('x')"],
    ),
    "status-last-time": (
        [
            REQUEST + "client.get_job_status(request).status['last_time_received']",
            REQUEST + "request.status.get('last_time_received')",
        ],
        [REQUEST + "request.status['time_received']"],
    ),
    "job-keys": (
        [
            CLIENT + "client.submit_multiple_jobs([{'task': 't', 'data': 'd', 'background': 1}])",
            CLIENT + "jobs = []\nfor n in '12':\n    jobs.append(dict(task='t', data=n, id=n))\n"
            "client.submit_multiple_jobs(jobs)",
        ],
        [
            CLIENT + "client.submit_multiple_jobs([{'task': 't', 'data': 'd', 'unique': 'u'}])",
            CLIENT + "client.submit_multiple_jobs([{'task': 't', 'data': str({'id': 1})}])",
            CLIENT + "other = {'task': 't', 'data': 'd', 'id': 1}",
        ],
    ),
    "assertion-caught": (
        [
            CLIENT + "try:\n    client.submit_multiple_jobs(None)\n"
            "except (ValueError, AssertionError):\n    pass",
        ],
        [
            CLIENT + "try:\n    check()\nexcept AssertionError:\n    pass",
            CLIENT + "try:\n    client.submit_job('t', 'd')\nexcept TypeError:\n    pass",
        ],
    ),
    "background-default": (
        [
            CLIENT.replace("gearman", "py3gearman", 1).replace("= gearman", "= py3gearman")
            + "client.submit_job('task', 'data')"
        ],
        [
            "import py3gearman\npy3gearman.GearmanClient().submit_job('t', 'd', background=True)",
            REQUEST,
        ],
    ),
    "name-as-bytes": (
        [
            callback("return job.task == b'task'"),
            callback("return job.unique.decode()"),
            callback("return job.task in (b'a', b'b')"),
            REQUEST + "request.job.handle == b'H:1'",
        ],
        [
            callback("return job.task == 'task'"),
            callback("if isinstance(job.task, bytes):\n    return job.task.decode()\nreturn ''"),
        ],
    ),
    "name-with-bytes": (
        [
            callback("return job.task + b'!'"),
            callback("return job.task.startswith(b'a')"),
            callback("return b'%s' % job.task"),
        ],
        [callback("return job.task + '!'"), callback("return job.task.startswith('a')")],
    ),
    "data-compared": (
        [
            callback("return job.data == 'x'"),
            callback("return 'x' in job.data"),
            callback("return job.data in ('x', 'y')"),
            callback("return job.data[0] == 'x'"),
            REQUEST + "request.result != 'OK'",
            CLIENT + "class Jobs:\n    def __init__(self):\n"
            "        self.client = gearman.GearmanClient()\n    def run(self):\n"
            "        r = self.client.submit_job('t', 'd')\n        return r.result == 'OK'",
            CLIENT + "def run():\n    return client.submit_job('t', 'd')\nrun().result == 'OK'",
            CLIENT
            + "def check(r):\n    return r.result == 'OK'\ncheck(client.submit_job('t', ''))",
            CLIENT + "[r for r in client.submit_multiple_jobs([]) if r.result == 'OK']",
        ],
        [
            callback("return job.data == b'x'"),
            callback("return job.data.decode() == 'x'"),
            callback(
                "data = job.data\nif isinstance(data, bytes):\n    data = data.decode()\n"
                "return data == 'x'"
            ),
            callback("return isinstance(job.data, str) and job.data == 'x'"),
            callback("if not isinstance(job.data, str):\n    raise TypeError\nreturn 'x'"),
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n    data_encoder = None\n"
                "    def on_job_execute(self, job):\n        return job.data == 'x'"
            ),
            CLIENT + "client.data_encoder = None\nclient.submit_job('t', 'd').result == 'OK'",
            "request.result == 'OK'",
        ],
    ),
    "data-as-text": (
        [
            callback("return job.data.split(',')"),
            callback("return job.data.encode()"),
            callback("return re.match('a', job.data)"),
            callback("return io.StringIO(job.data)"),
            WORKER + "worker.register_task('t', lambda w, j: j.data.startswith('x'))",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n"
                "    def __init__(self):\n        self.register_task('t', self.do)\n"
                "    def do(self, worker, job):\n        return job.data.replace('a', 'b')"
            ),
            (
                "import gearman, functools\ndef do(extra, worker, job):\n"
                "    return job.data.split(',')\n"
                "gearman.GearmanWorker().register_task('t', functools.partial(do, 1))"
            ),
        ],
        [
            callback("return job.data.split(b',')"),
            callback("return job.data.split()"),
            callback("return json.loads(job.data)"),
            callback("return re.match(b'a', job.data)"),
            callback("return io.BytesIO(job.data)"),
        ],
    ),
    "data-joined": (
        [
            callback("return job.data + 'x'"),
            callback("return os.path.join('/tmp', job.data)"),
            callback("data = job.data\ndata += 'x'\nreturn data"),
            callback("return bytes(job.data, 'utf-8')"),
        ],
        [callback("return job.data + b'x'"), callback("return job.data * 2")],
    ),
    "data-shown": (
        [
            callback("return '%s!' % job.data"),
            callback("return f'{job.data}!'"),
            callback("return '{}!'.format(job.data)"),
            callback("return str(job.data)"),
        ],
        [
            callback("return b'%s!' % job.data"),
            callback("print('%s' % job.data)"),
            callback("logger.info(f'got {job.data}')"),
            callback("return f'{job.data!r}'"),
            callback("raise ValueError(f'bad: {job.data}')"),
            callback("return str(job.data, 'utf-8')"),
        ],
    ),
    "data-to-json": (
        [callback("return json.dumps({'data': [job.data]})"), callback("json.dumps(job.data)")],
        [
            callback("return json.dumps({'size': len(job.data)})"),
            callback("pickle.dumps(job.data)"),
        ],
    ),
    "callback-parameters": (
        [
            WORKER + "def do(job):\n    return ''\nworker.register_task('t', do)",
            WORKER + "worker.register_task('t', lambda job: '')",
            WORKER + "def do(worker, job, *, extra):\n    return ''\nworker.register_task('t', do)",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n    def run(self):\n"
                "        self.register_task('t', self.do)\n"
                "    def do(self, job):\n        return ''"
            ),
        ],
        [
            WORKER + "def do(worker, job, extra=1):\n    return ''\nworker.register_task('t', do)",
            WORKER + "def do(*arguments):\n    return ''\nworker.register_task('t', do)",
            WORKER + "@decorated\ndef do(job):\n    return ''\nworker.register_task('t', do)",
            WORKER + "import functools\ndef do(a, worker, job):\n    return ''\n"
            "worker.register_task('t', functools.partial(do, 1))",
            (
                "import gearman\nclass W(gearman.GearmanWorker):\n    def run(self):\n"
                "        self.register_task('t', self.do)\n    @staticmethod\n"
                "    def do(worker, job):\n        return ''"
            ),
        ],
    ),
    "callback-async": (
        [WORKER + "async def do(worker, job):\n    return ''\nworker.register_task('t', do)"],
        [WORKER + "async def other(worker, job):\n    return ''\n" + callback("return ''")],
    ),
    "row-is-dict": (
        [
            ADMIN + "for row in admin.get_status():\n    isinstance(row, dict)",
            ADMIN + "json.dumps(admin.get_workers())",
            ADMIN + "[row.copy() for row in admin.get_status()]",
            ADMIN + "for row in admin.get_status():\n    row['mine'] = 1",
        ],
        [
            ADMIN + "for row in admin.get_status():\n    print(row['task'], row.get('queued'))",
            ADMIN + "json.dumps([dict(row) for row in admin.get_workers()])",
            ADMIN + "isinstance(other, dict)",
        ],
    ),
    "row-file-descriptor": (
        [ADMIN + "[row for row in admin.get_workers() if row['file_descriptor'] == '12']"],
        [ADMIN + "[row for row in admin.get_workers() if row['file_descriptor'] == 12]"],
    ),
    "row-job-keys": (
        [
            ADMIN + "[row['canceled'] for row in admin.get_jobs()]",
            ADMIN + "[row['unique'] for row in admin.get_unique_jobs()]",
        ],
        [ADMIN + "[row['queued'] for row in admin.get_status()]"],
    ),
    "pid-as-text": ([ADMIN + "admin.get_pid().split()"], [ADMIN + "print(admin.get_pid() + 1)"]),
    "maxqueue-as-text": (
        [ADMIN + "admin.send_maxqueue('task', '10')"],
        [ADMIN + "admin.send_maxqueue('task', 10)"],
    ),
    "gear": (
        [
            "import gear\nclient = gear.Client()\nclient.addServer('localhost')",
            "from gear import TextJob",
            "import gear\ndef f(c):\n    c.submitJob(1)",
            "import gear\njob = gear.Worker('w').getJob()\nprint(job.arguments)",
        ],
        ["from libra import gear\ngear.Client()", "client.addServer('localhost')"],
    ),
    "aiogear": (
        [
            "import aiogear",
            "from aiogear import Client",
            (
                "from aiogear import Client\nasync def f(loop):\n"
                "    _, c = await loop.create_connection(lambda: Client(), 'localhost', 4730)\n"
                "    return await c.get_status('H:1')"
            ),
        ],
        ["import asyncio\nclient.wait_job(1)", "from program import aiogear"],
    ),
}


def look(*texts: str, names: tuple[str, ...] = ()) -> Program:
    names = names or tuple(f"program{number}.py" for number in range(len(texts)))
    return Program([Source(Path(name), text) for name, text in zip(names, texts)])


def found(text: str) -> set[str]:
    return {finding.rule for finding in look(text).findings}


def test_all_rules_are_tried() -> None:
    assert CASES.keys() == rules.RULES.keys()


@pytest.mark.parametrize(
    ("rule", "text"), [(rule, text) for rule, (trips, _) in CASES.items() for text in trips]
)
def test_rule_applies(rule: str, text: str) -> None:
    assert rule in found(text)


@pytest.mark.parametrize(
    ("rule", "text"), [(rule, text) for rule, (_, misses) in CASES.items() for text in misses]
)
def test_rule_does_not_apply(rule: str, text: str) -> None:
    assert rule not in found(text)


def test_keys_of_jobs_are_those_of_the_library() -> None:
    with pytest.raises(ValueError) as raised:
        gearman_proto.make_requests([{"task": "t", "data": "d", "?": 1}])
    assert str(sorted(JOB_KEYS)) in str(raised.value)


# The page.


def test_the_page_has_all_rules() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (install|change) \|", page, re.MULTILINE))
    assert rows == {key: rule.verdict.value for key, rule in rules.RULES.items()}


@pytest.mark.parametrize(
    "table",
    [
        *("MODULES", "INNER_MODULES", "INNER_CLASSES", "INNER_PARTS", "OLD_NAMES", "OLD_MODULES"),
        *("GEAR", "AIOGEAR"),
    ],
)
def test_the_page_has_all_names(table: str) -> None:
    """A row has the name, and says of it what the tool says."""
    said: dict[str, set[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and line.count(" | ") == 1:
            names, text = line.strip("| ").split(" | ")
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "")
            for name in re.findall(r"[\w.]+", names):
                said.setdefault(name.rpartition(".")[2], set()).add(text.lower())
    for name, text in getattr(families, table).items():
        assert text.lower() in said[name], name


@pytest.mark.parametrize("names", [families.ALL_MODULES, families.WORKER_POLL])
def test_the_page_mentions(names: tuple[str, ...]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not [name for name in names if f"`{name}`" not in page and f"`{name}." not in page]


def test_the_page_shows_what_the_tool_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    match = re.search(
        r"<!-- program: (\S+) -->\n```py\n(.*?)```.*?<!-- printed -->\n```\n\$ [^\n]+\n(.*?)```",
        page,
        re.DOTALL,
    )
    assert match is not None
    name, program, printed = match.groups()
    (tmp_path / name).write_text(program)
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 1
    assert capsys.readouterr().out == printed


# Whole programs.

PROGRAM = '''
"""A pool of thumbnails: a program as they are written, with a worker and a client in it."""

import json
import logging

import gearman
from gearman import JOB_COMPLETE, JOB_UNKNOWN

log = logging.getLogger(__name__)


class ThumbnailWorker(gearman.GearmanWorker):
    def __init__(self, servers, sizes):
        super(ThumbnailWorker, self).__init__(servers)
        self.sizes = sizes
        self.finished = 0
        self.set_client_id("thumbnails")
        self.register_task("thumbnail", self.on_thumbnail)

    def on_thumbnail(self, worker, job):
        request = json.loads(job.data)
        log.info("%s: %s", job.handle, job.data)
        for number, size in enumerate(self.sizes):
            self.send_job_status(job, number, len(self.sizes))
            self.send_job_data(job, json.dumps({"size": size, "path": request["path"]}))
        self.finished += 1
        return json.dumps({"sizes": self.sizes})

    def after_job(self):
        return self.finished < 100

    def on_job_exception(self, current_job, exc_info):
        log.error("%s failed", current_job.task, exc_info=exc_info)
        return super(ThumbnailWorker, self).on_job_exception(current_job, exc_info)


def check_request_status(job_request):
    if job_request.complete:
        print("Job %s: %s %s" % (job_request.job.unique, job_request.state, job_request.result))
    elif job_request.timed_out:
        print("Job %s timed out" % job_request.job.unique)
    elif job_request.state == JOB_UNKNOWN:
        print("Job %s: connection lost" % job_request.job.unique)


def main():
    client = gearman.GearmanClient(["localhost:4730"])
    jobs = [dict(task="thumbnail", data=json.dumps({"path": path})) for path in ("a", "b")]
    requests = client.submit_multiple_jobs(jobs, background=False, wait_until_complete=False)
    for request in client.wait_until_jobs_completed(requests, poll_timeout=5.0):
        check_request_status(request)
        if request.state == JOB_COMPLETE:
            print(json.loads(request.result)["sizes"])
    try:
        client.submit_job("thumbnail", "{}", background=True, priority=gearman.PRIORITY_LOW)
    except gearman.errors.ServerUnavailable:
        log.exception("no server")
    admin = gearman.GearmanAdminClient(["localhost:4730"])
    busy = [row for row in admin.get_status() if row["running"]]
    print(sorted(busy, key=lambda row: row["task"]), admin.ping_server())


if __name__ == "__main__":
    main()
'''


def test_a_program_in_which_nothing_differs() -> None:
    program = look(PROGRAM)
    assert program.findings == []
    assert program.users == {"program0.py": {"gearman"}}


STR_PROGRAM = """
import json
import python3_gearman

class Worker(python3_gearman.GearmanWorker):
    def __init__(self):
        self.stop = False
        super().__init__(host_list=["localhost:4730"])

    def on_job_execute(self, current_job):
        self.payload = json.loads(current_job.data)
        self.kind, self.path = current_job.data.split(":", 1)
        return super().on_job_execute(current_job)

    def on_job_complete(self, current_job, job_result):
        results = json.loads(job_result)
        self.send_job_data(current_job, "done: " + current_job.data)
        return super().send_job_complete(current_job, json.dumps(results))

    def after_poll(self, any_activity):
        return not self.stop

def task_copy(worker, current_job):
    worker.send_job_status(current_job, 1, 10)
    client = python3_gearman.GearmanClient(["localhost:4730"])
    request = client.submit_job("sum", current_job.data)
    if request.result == "failed":
        return json.dumps({"parts": []})
    return request.result

worker = Worker()
worker.set_client_id("copier")
worker.register_task("copy", task_copy)
worker.work()
"""

GEAR_PROGRAM = """
import gear

class Client(gear.Client):
    def handleWorkComplete(self, packet):
        job = super().handleWorkComplete(packet)
        print(job.data, job.failure)
        return job

client = Client("scheduler")
client.addServer("localhost", 4730)
client.waitForServer()
job = gear.TextJob("build", "{}", unique="1")
client.submitJob(job, precedence=gear.PRECEDENCE_HIGH)

def serve(name):
    worker = gear.Worker(name)
    worker.addServer("localhost")
    worker.registerFunction("build")
    while True:
        job = worker.getJob()
        try:
            job.sendWorkData(job.arguments)
            job.sendWorkComplete()
        except Exception as error:
            job.sendWorkException(str(error).encode())
"""

AIOGEAR_PROGRAM = """
import asyncio
from aiogear import Client, Worker

async def main(loop):
    _, worker = await loop.create_connection(lambda: Worker(upper), "localhost", 4730)
    transport, client = await loop.create_connection(Client, "localhost", 4730)
    created = await client.submit_job("upper", "text")
    done = await client.wait_job(created.handle)
    status = await client.get_status(created.handle)
    print(done.result, status)
    await worker.shutdown(graceful=True)
    transport.close()

def upper(job_info):
    return job_info.workload.upper()
"""

SUITE_PROGRAM = """
from unittest import mock
import gearman
from gearman.job import GearmanJob, GearmanJobRequest

def finished(result):
    request = GearmanJobRequest(mock.Mock(), max_attempts=0)
    request.state = gearman.JOB_COMPLETE
    request.result = result
    return request

@mock.patch("gearman.client.GearmanClient.submit_job")
def test_upload(submit_job):
    submit_job.return_value = finished(b"done")
    assert upload() == b"done"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            STR_PROGRAM,
            ["12 data-as-text", "17 data-joined", "27 data-compared"],
        ),
        (
            GEAR_PROGRAM,
            [f"{n} gear" for n in (2, 4, 5, 6, 11, 12, 13, 14, 14, 17, 18, 19, 21, 23, 23, 24, 26)],
        ),
        (AIOGEAR_PROGRAM, [f"{number} aiogear" for number in (3, 3, 8, 9, 10, 12, 16)]),
        (
            SUITE_PROGRAM,
            [
                *("4 import-module", "7 request-of-anything", "9 request-assigned"),
                "12 text-module",
            ],
        ),
    ],
    ids=["python3-gearman", "gear", "aiogear", "tests"],
)
def test_programs(text: str, expected: list[str]) -> None:
    assert [f"{each.line} {each.rule}" for each in look(text).findings] == expected


ENCODED = """
import json
from gearman import DataEncoder, GearmanClient, GearmanWorker

class JSONEncoder(DataEncoder):
    @classmethod
    def encode(cls, value):
        return json.dumps(value)
    @classmethod
    def decode(cls, text):
        return json.loads(text)

class JSONWorker(GearmanWorker):
    data_encoder = JSONEncoder

class PlainWorker(GearmanWorker):
    pass
"""
USES = """
from common.encoded import {name}

def handle(worker, job):
    return job.data == "x"

worker = {name}(["localhost"])
worker.register_task("handle", handle)
worker.establish_worker_connections()
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [("JSONWorker", ["worker-poll"]), ("PlainWorker", ["data-compared", "worker-poll"])],
)
def test_classes_of_other_files(name: str, expected: list[str]) -> None:
    program = look(ENCODED, USES.format(name=name), names=("common/encoded.py", "use.py"))
    assert [finding.rule for finding in program.findings] == expected


def test_a_class_of_a_class_that_a_third_file_passes_on() -> None:
    files = {
        "base.py": "import gearman\nclass Base(gearman.GearmanWorker):\n    pass\n",
        "package/__init__.py": "from base import Base\n",
        "use.py": "from package import Base\nclass Mine(Base):\n    pass\n",
        "last.py": "from use import Mine\nMine().establish_worker_connections()\n",
        "not.py": "from elsewhere import Mine\nMine().handle_read(1)\n",
    }
    program = look(*files.values(), names=tuple(files))
    assert [(each.file, each.rule) for each in program.findings] == [("last.py", "worker-poll")]


def test_data_of_an_unknown_worker_is_unknown_where_there_are_encoders() -> None:
    uses = "import gearman\ndef do(worker, job):\n    return job.data == 'x'\n"
    uses += "make().register_task('t', do)\n"
    assert [each.rule for each in look(uses).findings] == ["data-compared"]
    assert look(ENCODED, uses).findings == []


def test_two_libraries_in_one_file() -> None:
    assert found("import gear\nimport gearman\ngear.Client()\n" + REQUEST + "request.ok") == {
        "gear",
        "attribute-unknown",
    }


def test_lines_and_order() -> None:
    program = look(REQUEST + "request.result == 'x'\n\nrequest.result.split(',')\n")
    assert [(each.line, each.rule) for each in program.findings] == [
        (4, "data-compared"),
        (6, "data-as-text"),
    ]


# Running it.


def run(
    *arguments: str, cwd: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gearman_sync.migrate", *arguments],
        capture_output=True,
        check=False,
        text=True,
        cwd=cwd or ROOT,
        timeout=60,
        **options,
    )


def status_of(path: Path, *arguments: str) -> int:
    return main([*arguments, str(path)])


@pytest.mark.parametrize(
    ("text", "status", "last"),
    [
        (PROGRAM, 0, 'Next: nothing differs: "import gearman_sync as gearman" in place of'),
        ("import gearman.errors", 0, 'Next: add "import gearman_sync; gearman_sync.install_as_'),
        (REQUEST + "request.ok", 1, 'Next: write "import gearman_sync as gearman" in place of'),
        ("import gearman\nprint 1", 1, "Next: port "),
        ("import gear", 1, "Next: rewrite what is listed; docs/howto/migrating.md"),
        ("print(1)", 0, "Next: nothing: no file uses a library"),
        ("print 1", 0, "Next: nothing: no file uses a library"),
        (
            "import gearman_sync\ngearman_sync.install_as_gearman()\nimport gearman.errors",
            0,
            "Next: nothing: the program calls install_as_gearman() already.",
        ),
        (
            "import gearman_sync\ngearman_sync.install_as_gearman()\nimport gearman.io",
            1,
            "Next: change by hand what is listed as such; the program calls",
        ),
        (
            "import python3_gearman.errors",
            0,
            'Next: add "import gearman_sync; gearman_sync.install_as_gearman("python3_gearman")"',
        ),
    ],
)
def test_status_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, last: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(text)
    assert status_of(path) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[-1].startswith(last)


def test_summary_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("import gearman.errors\n" + REQUEST + "request.ok\n")
    (tmp_path / "b.py").write_text("print(1)\n")
    (tmp_path / "script").write_text("#!/usr/bin/env python3\nimport gearman\n")
    (tmp_path / "data").write_text("no script\n")
    (tmp_path / ".hidden.py").write_text("import gearman.io\n")
    assert status_of(tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-2] == (
        "3 files read, 2 with a Gearman library; 1 to change by hand, "
        "1 that install_as_gearman() takes care of."
    )


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "program.py"
    path.write_text(REQUEST + "request.result == 'x'\n")
    assert status_of(path, "--json") == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "file": str(path),
            "line": 4,
            "rule": "data-compared",
            "verdict": "change",
            "what": "request.result == 'x' compares data with str, and data is bytes: "
            "they are never equal",
            "do": 'write b"...", or compare what decode() returns',
        }
    ]


def test_nothing_is_run_and_nothing_reaches_the_terminal_raw(tmp_path: Path) -> None:
    name = "a\x1b[31m.py"
    text = "raise SystemExit('it was run')\n" + REQUEST + "request.result == '\x1b[2Jx\u202e'\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    ran = run(str(tmp_path), "absent\x1b[1m", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 2
    assert "it was run" not in ran.stdout
    assert "data-compared" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr
    assert r"a\x1b[31m.py:5" in ran.stdout
    assert r"absent\x1b[1m: No such file or directory" in ran.stderr


def test_a_pipe_that_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(REQUEST + "request.result == 'x'\n" * 5_000)
    command = f"{sys.executable} -m gearman_sync.migrate {path} | head -1"
    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True, timeout=120
    )
    assert ran.stdout.count("\n") == 1
    assert ran.stderr == ""


def test_import_of_the_library_does_not_load_it() -> None:
    program = "import sys, gearman_sync; print([n for n in sys.modules if 'migrate' in n])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout == "[]\n"


def test_it_needs_nothing_but_python() -> None:
    """The other programs of its room need an extra."""
    command = [sys.executable, "-S", "-m", "gearman_sync.migrate", "--help"]
    packages = Path(gearman_proto.__file__).parents[1]
    ran = subprocess.run(
        command, cwd=packages, capture_output=True, check=True, text=True, timeout=60
    )
    assert ran.stdout.startswith("usage: python -m gearman_sync.migrate")


def test_usage() -> None:
    ran = run()
    assert ran.returncode == 2
    assert "usage: python -m gearman_sync.migrate" in ran.stderr
    ran = run("--help")
    assert ran.returncode == 0
    assert "Exit status" in ran.stdout


# What can't be read.


def test_what_can_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.py"
    good.write_text("import gearman.errors\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00 import gearman")
    (tmp_path / "codec.py").write_bytes(b"# -*- coding: klingon -*-\nimport gearman\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nimport gearman.errors #\xe4\n")
    (tmp_path / "nul.py").write_bytes(b"import gearman\n\0\n")
    (tmp_path / "deep.py").write_text("import gearman\nx = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "minus.py").write_text("import gearman\nx = " + "-" * 50_000 + "1")
    (tmp_path / "sum.py").write_text("import gearman\nx = " + "+".join(["1"] * 50_000))
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path)
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(10_000_000)
    os.mkfifo(tmp_path / "pipe.py")
    assert main([str(tmp_path), str(tmp_path / "absent")]) == 2
    printed = capsys.readouterr()
    assert "good.py:1: install" in printed.out
    assert "latin.py:2: install" in printed.out
    assert "Traceback" not in printed.out + printed.err
    lines = dict(line.rsplit("/", 1)[1].split(": ", 1) for line in printed.err.splitlines())
    assert lines.keys() >= {"bytes.py", "codec.py", "loop.py", "huge.py", "pipe.py", "absent"}
    assert lines["huge.py"] == "this is larger than 5 MB"
    assert lines["pipe.py"] == "this is no regular file"
    assert lines["absent"] == "No such file or directory"
    # Which of these Python's parser takes depends on the version.
    for name in ("deep.py", "minus.py", "sum.py"):
        assert name in printed.out or lines.get(name, "").startswith("this is nested")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("print(1)", "Next: correct what standard error lists, and run this again."),
        (
            PROGRAM,
            "Next: correct what standard error lists, and run this again. For the other files: no",
        ),
    ],
)
def test_file_that_can_not_be_read_is_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, last: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(text)
    assert main([str(path), str(tmp_path / "absent.py")]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)
    assert main([str(tmp_path / "absent.py")]) == 2
    assert "nothing" not in capsys.readouterr().out


# Output that can't be written.


@pytest.mark.parametrize("text", ["print(1)\n", "import gearman.errors\n" * 1000])
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_full_disk_is_an_error_of_one_line(tmp_path: Path, text: str, option: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "program.py"
    path.write_text(text + "import gearman.io\n")
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "gearman_sync.migrate", *option, str(path)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            timeout=60,
        )
    assert (ran.returncode, ran.stderr) == (
        2,
        "python -m gearman_sync.migrate: can't write the findings: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_stream_that_is_closed_or_full_changes_no_status(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "program.py"
    path.write_text("import gear\n")
    command = [sys.executable, "-m", "gearman_sync.migrate"]
    for paths, status in (([path], 1), ([path, tmp_path / "absent"], 2)):
        ran = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command, *map(str, paths)],
            cwd=ROOT,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert ran.returncode == status
        assert "Traceback" not in ran.stderr


def test_a_directory_without_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(tmp_path) == 0
    assert "there is no Python in this directory" in capsys.readouterr().err


def test_a_file_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "program.py"
    path.write_text("import gearman.errors\n")
    (tmp_path / "link.py").symlink_to(path)
    assert main([str(path), str(tmp_path), str(path)]) == 0
    assert "1 file read" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert status_of(tmp_path) == 2
    assert "Permission denied" in capsys.readouterr().err


# Anything that is Python.

EXPRESSIONS = st.recursive(
    st.sampled_from(
        ["gearman", "client", "request", "job", "worker", "'x'", "b'x'", "1", "None", "row", "self"]
    ),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(
                [
                    "data",
                    "result",
                    "task",
                    "split",
                    "submit_job",
                    "register_task",
                    "get_status",
                    "connection_list",
                    "GearmanClient",
                    "popleft",
                    "submit_multiple_jobs",
                    "job",
                ]
            ),
        ).map(lambda pair: f"({pair[0]}).{pair[1]}"),
        st.lists(inner, max_size=3).map(lambda parts: f"({', '.join(parts)},)" if parts else "()"),
        st.tuples(inner, st.lists(inner, max_size=3)).map(
            lambda pair: f"({pair[0]})({', '.join(pair[1])})"
        ),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})[{pair[1]}]"),
        st.tuples(inner, st.sampled_from(["+", "%", "==", "in", "and", "if 1 else"]), inner).map(
            lambda triple: f"({triple[0]} {triple[1]} {triple[2]})"
        ),
        st.tuples(inner, inner).map(lambda pair: f"[{pair[0]} for job in {pair[1]}]"),
        inner.map(lambda text: f"(lambda worker, job=1: {text})"),
        st.tuples(inner, inner).map(lambda pair: f"{{'task': {pair[0]}, 'data': {pair[1]}}}"),
    ),
    max_leaves=12,
)
STATEMENTS = st.one_of(
    EXPRESSIONS,
    EXPRESSIONS.map(lambda text: f"client = {text}"),
    EXPRESSIONS.map(lambda text: f"self.client = job, *request = {text}"),
    EXPRESSIONS.map(lambda text: f"for request in {text}:\n    request += 'x'"),
    EXPRESSIONS.map(lambda text: f"def do(worker, job: {text} = 1):\n    return {text}"),
    EXPRESSIONS.map(lambda text: f"class W({text}):\n    def do(self, job):\n        {text}"),
    EXPRESSIONS.map(lambda text: f"if isinstance({text}, str):\n    {text}\nelse:\n    job = 1"),
    EXPRESSIONS.map(lambda text: f"try:\n    {text}\nexcept AssertionError:\n    {text}"),
    EXPRESSIONS.map(lambda text: f"with {text} as client:\n    del client.connection_list"),
    EXPRESSIONS.map(lambda text: f"match {text}:\n    case {{'data': job}}:\n        {text}"),
    st.sampled_from(
        ["import gearman.io as client", "from gearman import *", "import gear, aiogear"]
    ),
)


@given(st.lists(STATEMENTS, max_size=6))
def test_any_python_is_looked_at(statements: list[str]) -> None:
    text = "\n".join(["import gearman", *statements])
    assert ast.parse(text)
    assert look(text).problems == []


def test_long_chains() -> None:
    """What each call of a chain is of is looked at once, not twice each time."""
    chain = ".filter(job).limit(1)" * 100
    program = look(f"{REQUEST}query{chain}\nrequest{chain}.result == 'x'\n")
    assert program.problems == []


@pytest.mark.parametrize("base", ["gearman" + ".x" * 20_000, "x" + "()" * 20_000])
def test_deep_classes(base: str) -> None:
    look(f"import gearman\nclass W({base}):\n    pass\n")


@given(st.text())
def test_any_text_is_looked_at(text: str) -> None:
    look("import gearman\n" + text)


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "sync").glob("*.py")), ids=str)
def test_programs_that_are_here(path: Path) -> None:
    """The tests of this library, as if they had been written for another."""
    text = path.read_text(encoding="utf-8").replace("from __future__ import annotations", "")
    for module in ("gearman", "gear", "aiogear"):
        program = look(f"import {module}\n{text}")
        assert program.problems == []
        assert ast.parse(text)

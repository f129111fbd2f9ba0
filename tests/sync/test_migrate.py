"""The findings of ``python -m gearman_sync.migrate``, and its output."""

from __future__ import annotations

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
from gearman_sync.cli.migrate import _names as names
from gearman_sync.cli.migrate._program import Program
from gearman_sync.cli.migrate._report import main
from gearman_sync.cli.migrate._rules import RULES
from gearman_sync.cli.migrate._sources import Source

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")

#: Programs. A line's comment names the rule that applies to the line. Other lines are sound.
PROGRAMS = {
    "imports": """
import gearman
import gearman.errors  # import-module
from gearman.client import GearmanClient  # import-module
from gearman import connection_manager  # import-module
from gearman import GearmanWorker, JOB_COMPLETE, errors
from gearman.io import get_connection_poller  # inner-used
from gearman import Oops  # import-unknown
from gearman import Task  # api-1x
from gearman.task import Task  # api-1x
import pygearman  # import-distribution
from .gearman.client import GearmanClient
import io, compat
print(gearman.errors.ServerUnavailable, gearman.job.GearmanJob)
print(gearman.util.select)  # import-module
gearman.frobnicate()  # import-unknown
gearman.GearmanClient.command_handler_class  # inner-used
gearman.connection.GearmanConnection.connect_timeout = 3  # connection-class
patch("gearman.client.GearmanClient")  # import-module
patch("gearman.client.GearmanClient.send_job_request")  # inner-used
patch("gearman.GearmanClient")
print("gearman.client")
""",
    "python_2": """
import gearman
isinstance("x", basestring)  # python-2
{}.iteritems()  # python-2
six.iteritems({})
try:
    unicode
except NameError:
    unicode = str
""",
    "subclasses": """
import gearman
from gearman import *

class Worker(gearman.GearmanWorker):
    stop = False  # name-taken
    connection_class = None  # connection-class
    job_class = None  # inner-overridden
    logger = None

    def __init__(self, servers):
        super().__init__(servers)
        self.work = None
        self.finished = 0
        self.connection_list = []  # connection-list
        self._log = None

    def establish_worker_connections(self):  # worker-poll
        return []

    def handle_error(self, connection):  # inner-overridden
        super().handle_error(connection)  # inner-used

    def after_poll(self, any_activity):
        return self.finished < 10

    def on_job_execute(self, job):
        return job.data == "x"  # data-compared

class Client(GearmanClient):
    def __init__(self):
        self.updates = []  # name-taken
        self.submit = None

    def submit_job(self, task):
        return Answer(task)

Client().submit_job("t").result == "x"

class Other:
    stop = False
    def handle_error(self):
        self.stop = True
""",
    "clients": """
import gearman
client = gearman.GearmanClient(["localhost:4730"])
worker = gearman.GearmanWorker()
admin = gearman.GearmanAdminClient()
client.request_to_rotating_connection_queue  # request-queue
client.wait_until_any_job_completed([])  # wait-any
client.add_connection("host")  # connection-list
client.job_request_class  # job-class
client.do_taskset([])  # api-1x
worker.poll_connections_until_stopped([], None)  # worker-poll
admin.current_connection  # admin-connection
anything.connection_to_handler_map  # inner-used
client.poll_connections_until_stopped([], None)
pool.add_connection("host")
pool.connection_list = []
server.handle_error(None)
print(client.connection_list)
rows = admin.get_status()
json.dumps(rows)  # row-is-dict
json.dumps([admin.get_workers()])  # row-is-dict
json.dumps([dict(row) for row in rows])
""",
    "requests": """
import gearman
from gearman.job import GearmanJobRequest  # import-module

class Jobs:
    def __init__(self):
        self.client = gearman.GearmanClient()

    def run(self, other, known: GearmanJobRequest):
        request = self.client.submit_job("t", "d")
        request.result = "done"  # request-assigned
        request.gearman_job = None  # request-fixed
        request.data_updates.append("x")  # request-fixed
        request.status["last_time_received"]  # status-last-time
        request.job.to_dict()  # job-to-dict
        request.mine = request.data_updates.popleft()
        known.result == "x"  # data-compared
        other.result = other.to_dict()
        for each in self.client.submit_multiple_jobs([]):
            if each.result == "OK":  # data-compared
                break
        with gearman.GearmanClient() as client:
            client.connection_list = []  # connection-list
        if (second := self.client.submit_job("t", "d")).result == "x":  # data-compared
            third: object = second
            third.exception == "x"  # data-compared
        left, right = request, request
        return left.result == "OK"
""",
    "data": """
import gearman
worker = gearman.GearmanWorker()

def task(gearman_worker, gearman_job):
    data = gearman_job.data
    data == "x"  # data-compared
    "x" in data  # data-compared
    data in ("x", "y")  # data-compared
    data[0] == f"{1}"  # data-compared
    data.split(",")  # data-as-text
    data.encode()  # data-as-text
    data + "x"  # data-as-text
    data += "x"  # data-as-text
    re.match("a", data)  # data-as-text
    os.path.join(str(1), data)  # data-as-text
    json.dumps({"data": data})  # data-as-text
    str(data)  # data-shown
    "%s!" % data  # data-shown
    "{}!".format(data)  # data-shown
    f"{data}!"  # data-shown
    log.info("%s" % data), "%d" % len(data)
    print(f"{data}", f"{data!r}", b"%s" % data)
    data[1:].split(b","), data.split(), data.decode() == "x", data == b"x"
    str(data, "utf-8"), re.match(b"a", data), json.loads(data)
    gearman_job.task == b"task"  # name-as-bytes
    gearman_job.unique.decode()  # name-as-bytes
    gearman_job.unique == "1"
    raise ValueError(f"bad: {data}")

def decoded(worker, job):
    data = job.data
    if isinstance(job.unique, bytes):
        job.unique.decode()
    data = data.decode()
    return data == "x" or isinstance(job.data, str) and job.data == "x"

def other(pool, job):
    return job.data == "x"

worker.register_task("t", lambda one, two: two.data.startswith("x"))  # data-as-text
""",
    "callbacks": """
import gearman
worker = gearman.GearmanWorker()
def short(job): ...
def plain(worker, item):
    item.data == "x"  # data-compared
async def asynchronous(worker, job): ...
def more(worker, job, extra=1): ...
def any_number(*arguments): ...
def keyword(worker, job, *, extra): ...
@decorated
def wrapped(job): ...
worker.register_task("t", short)  # callback-parameters
worker.register_task("t", keyword)  # callback-parameters
worker.register_task("t", lambda job: "")  # callback-parameters
worker.register_task("t", asynchronous)  # callback-async
worker.register_task("t", callback_function=plain)  # register-keyword
worker.register_task("t", more)
worker.register_task("t", any_number)
worker.register_task("t", wrapped)
worker.register_task("t", made())
worker.register_task("t")
""",
    "try_except": """
try:
    import gearman
except ImportError:
    gearman = None
try:
    from program.gearman import GearmanWorker
except ImportError:
    from gearman import GearmanWorker
gearman.frobnicate()  # import-unknown
GearmanWorker().handle_read(1)  # inner-used
""",
    "py3gearman": """
import py3gearman
client = py3gearman.GearmanClient()
client.submit_job("t", "d")  # background-default
client.submit_job("t", "d", background=False)
client.submit_job("t", "d", **options)
""",
    "gear": """
import gear  # gear
class Client(gear.Client):  # gear
    def run(self):
        self.finished = 1
client = gear.Client("scheduler")  # gear
client.addServer("localhost")  # gear
job = gear.Worker("w").getJob()  # gear
print(job.arguments)  # gear
print(other.arguments)
""",
    "asynchronous": """
from aiogear import Client  # aiogear
from aiogearman import create_client  # aiogearman
async def main():
    client = await create_client()
    job = await client.submit(b"t", b"d")  # aiogearman
""",
    "wrappers_of_c": """
import pygear  # pygear
from gearman import libgearman  # libgearman
from gearman.libgearman import Worker  # libgearman
c = pygear.Client()  # pygear
c.add_server("localhost", 4730)  # pygear
d = libgearman.Client()  # libgearman
d.do("t", "x")  # libgearman
""",
    "others": """
from libra import gear
from libra.gear import *
from gearman_anyio import GearmanWorker
async def asynchronous(job): ...
GearmanWorker().register_task("t", asynchronous)
gear.Client().addServer("localhost")
self.connection_to_handler_map
"x".has_key(1)
isinstance("x", basestring)
""",
}

SOUND = """
import json
import logging

import gearman
from gearman import JOB_COMPLETE, JOB_UNKNOWN

log = logging.getLogger(__name__)


class ThumbnailWorker(gearman.GearmanWorker):
    def __init__(self, servers, sizes):
        super(ThumbnailWorker, self).__init__(servers)
        self.sizes = sizes
        self.set_client_id("thumbnails")
        self.register_task("thumbnail", self.on_thumbnail)

    def on_thumbnail(self, worker, job):
        request = json.loads(job.data)
        log.info("%s: %s", job.handle, job.data)
        for number, size in enumerate(self.sizes):
            self.send_job_status(job, number, len(self.sizes))
            self.send_job_data(job, json.dumps({"size": size, "path": request["path"]}))
        return json.dumps({"sizes": self.sizes})

    def on_job_exception(self, current_job, exc_info):
        log.error("%s failed", current_job.task, exc_info=exc_info)
        return super(ThumbnailWorker, self).on_job_exception(current_job, exc_info)


def main():
    client = gearman.GearmanClient(["localhost:4730"])
    jobs = [dict(task="thumbnail", data=json.dumps({"path": path})) for path in ("a", "b")]
    requests = client.submit_multiple_jobs(jobs, background=False, wait_until_complete=False)
    for request in client.wait_until_jobs_completed(requests, poll_timeout=5.0):
        if request.state == JOB_COMPLETE:
            print("%s: %s" % (request.job.unique, request.result))
            print(json.loads(request.result)["sizes"])
    try:
        client.submit_job("thumbnail", "{}", background=True, priority=gearman.PRIORITY_LOW)
    except gearman.errors.ServerUnavailable:
        log.exception("no server")
    admin = gearman.GearmanAdminClient(["localhost:4730"])
    print(sorted(admin.get_status(), key=lambda row: row["task"]), admin.ping_server())
"""


def look(files: dict[str, str]) -> Program:
    return Program(Source(Path(name), text) for name, text in files.items())


def found(program: Program) -> list[str]:
    return [f"{each.file}:{each.line} {each.rule}" for each in program.findings]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_has_the_findings_of_its_comments(name: str) -> None:
    lines = PROGRAMS[name].splitlines()
    expected = {
        (number, match[1])
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"  # ([a-z0-9-]+)$", line))
    }
    program = look({"program.py": PROGRAMS[name]})
    assert {(each.line, each.rule) for each in program.findings} == expected
    assert program.problems == []


def test_every_rule_is_in_a_program() -> None:
    assert RULES.keys() == set(re.findall(r"  # ([a-z0-9-]+)\n", "".join(PROGRAMS.values())))


def test_sound_program_has_no_findings() -> None:
    program = look({"program.py": SOUND})
    assert program.findings == []
    assert program.users == {"program.py": {"gearman"}}


def test_library_reexported_under_another_name_is_found() -> None:
    module = """
try:
    import gearman as gearman_lib
except ImportError:
    gearman_lib = None
from gearman import GearmanClient as Client
"""
    use = "from {}.gm import Client, gearman_lib\ngearman_lib.Task\nClient().handle_read(1)\n"
    files = {"pkg/gm.py": module, "use.py": use.format("pkg"), "other.py": "import gm\ngm.Task\n"}
    program = look(files)
    assert found(program) == ["use.py:2 api-1x", "use.py:3 inner-used"]
    assert program.users.keys() == {"pkg/gm.py", "use.py"}


def test_class_derived_in_another_file_is_found() -> None:
    program = look(
        {
            "base.py": "import gearman\nclass Base(gearman.GearmanWorker):\n    pass\n",
            "package/__init__.py": "from base import Base\n",
            "use.py": "from .package import Base\nclass Mine(Base):\n    stop = 1\n",
            "other.py": "from elsewhere import Mine\nclass Worker(Mine):\n    stop = 1\n",
        }
    )
    assert found(program) == ["use.py:3 name-taken"]


def test_data_of_a_program_with_an_encoder_is_unknown() -> None:
    callback = "import gearman\ndef do(worker, job):\n    return job.data == 'x'\n"
    encoder = "import gearman\nclass W(gearman.GearmanWorker):\n    data_encoder = JSON\n"
    assert found(look({"use.py": callback})) == ["use.py:3 data-compared"]
    assert found(look({"use.py": callback, "encoder.py": encoder})) == []


def test_deep_code_is_read_or_reported() -> None:
    chain = ".filter(job).limit(1)" * 40
    assert found(look({"use.py": f"import gearman\nquery{chain}\ngearman.frob\n"})) == [
        "use.py:3 import-unknown"
    ]
    for text in ("x" + ".y" * 1_200, "x" + "()" * 20_000, "x" + ".y" * 20_000, "-" * 50_000 + "1"):
        for program in (
            look({"a.py": f"import gearman\n{text}\n"}),
            look({"a.py": f"import gearman\nz = {text}"}),
        ):
            assert program.problems in ([], ["a.py: this is nested too deeply to be read"])


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    look({"a.py": "import gearman\n" + text})


# The documentation page.


def test_page_has_all_rules() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (install|change) \|", PAGE, re.MULTILINE))
    assert rows == {key: verdict for key, (verdict, _, _) in RULES.items()}


@pytest.mark.parametrize("table", ["MODULES", "INNER_MODULES", "INNER_PARTS", "OLD_NAMES"])
def test_page_has_all_names(table: str) -> None:
    mentioned = set(re.findall(r"[\w.]+", PAGE))
    last = {name.rpartition(".")[2] for name in mentioned}
    assert {name.lstrip(".") for name in getattr(names, table)} <= last
    assert set(names.ALL_MODULES) <= last


def test_page_shows_the_output_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    match = re.search(
        r"<!-- program: (\S+) -->\n```py\n(.*?)```.*?<!-- printed -->\n```\n\$ [^\n]+\n(.*?)```",
        PAGE,
        re.DOTALL,
    )
    assert match is not None
    name, program, printed = match.groups()
    (tmp_path / name).write_text(program)
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 1
    assert capsys.readouterr().out == printed


# Running the tool.

REQUEST = "import gearman\nrequest = gearman.GearmanClient().submit_job('t', 'd')\n"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gearman_sync.migrate", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, **options}
    return subprocess.run(command, check=False, text=True, timeout=120, **options)


INSTALLED = "gearman_sync.install_as_gearman()\n"


@pytest.mark.parametrize(
    ("text", "status", "last"),
    [
        (SOUND, 0, 'nothing differs: "import gearman_sync as gearman" in place of'),
        (
            "import gearman.errors",
            0,
            'add "import gearman_sync; gearman_sync.install_as_gearman()"',
        ),
        (
            "import py3gearman.job",
            0,
            'add "import gearman_sync; gearman_sync.install_as_gearman("py',
        ),
        ("import gearman\ngearman.Task", 1, 'write "import gearman_sync as gearman" in'),
        ("import gear", 1, "rewrite what is listed; docs/howto/migrating.md"),
        ("print 1", 0, "nothing: no file uses a library"),
        (INSTALLED + "import gearman.errors", 0, "nothing: the program calls install_as_gearman()"),
        (INSTALLED + "import gearman.io", 1, "change by hand what is listed as such: the program"),
    ],
)
def test_summary_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, last: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(text)
    assert main([str(path)]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[-1].startswith(f"Next: {last}")


def test_python_2_files_get_the_command_of_2to3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b.py").write_text("import os, gearman\nprint 'hello'\n")
    (tmp_path / "c.py").write_text("import gearman\nxrange(3)\nraw_input()\n")
    (tmp_path / "d.py").write_text("import gearman\n")
    (tmp_path / "e.py").write_text("from libra.gear import Worker\nprint 'hello'\n")
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "a b.py:2: change: Python 3 can't run this: " in printed
    assert printed.splitlines()[-2].startswith("Next: port to Python 3, then run this again.")
    assert printed.splitlines()[-1] == (
        f"    2to3 --write --nobackups '{tmp_path}/a b.py' {tmp_path}/c.py"
    )


def test_folder_is_searched_for_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("import gearman.errors\nimport gearman.io\n")
    (tmp_path / "script").write_text("#!/usr/bin/env python3\nimport gearman\n")
    (tmp_path / "data").write_text("no script\n")
    (tmp_path / "data.txt").write_text("no script\n")
    (tmp_path / ".hidden.py").write_text("import gearman.io\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.py").write_text("import gearman.io\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "venv" / "b.py").write_text("import gearman.io\n")
    assert main([str(tmp_path), str(tmp_path / "folder")]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2] == (
        "2 files read, 2 with a Gearman library; 1 to change by hand, "
        "1 that install_as_gearman() takes care of."
    )
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 0
    assert "there is no Python in this directory" in capsys.readouterr().err


def test_json_option_prints_an_object_for_each_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "program.py"
    path.write_text(REQUEST + "request.result == 'x'\n")
    assert main(["--json", str(path)]) == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "file": str(path),
            "line": 3,
            "rule": "data-compared",
            "verdict": "change",
            "what": "request.result == 'x' compares data with str, and data is bytes: "
            "they are never equal",
            "do": 'write b"...", or compare what decode() returns',
        }
    ]


def test_program_is_not_run_and_its_text_is_escaped(tmp_path: Path) -> None:
    text = "raise SystemExit('it was run')\n" + REQUEST + "request.result == '\x1b[2Jx\u202e'\n"
    (tmp_path / "a\x1b[31m.py").write_text(text, encoding="utf-8")
    ran = run(str(tmp_path), "absent\x1b[1m", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 2
    assert "it was run" not in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr
    assert r"a\x1b[31m.py:4: change: request.result == " in ran.stdout
    assert r"absent\x1b[1m: No such file or directory" in ran.stderr


def test_unreadable_files_get_a_line_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.py").write_text("import gearman.errors\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00 import gearman")
    (tmp_path / "codec.py").write_bytes(b"# -*- coding: klingon -*-\nimport gearman\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nimport gearman.errors #\xe4\n")
    (tmp_path / "nul.py").write_bytes(b"import gearman\n\0\n")
    # Even root can't read the first bytes of this file.
    (tmp_path / "memory.py").symlink_to("/proc/self/mem")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(10_000_000)
    os.mkfifo(tmp_path / "pipe.py")
    assert main([str(tmp_path), str(tmp_path / "absent"), "a\0b"]) == 2
    printed = capsys.readouterr()
    assert "good.py:1: install" in printed.out
    assert "latin.py:2: install" in printed.out
    assert "Next: correct what standard error lists, and run this again. For the other files: " in (
        printed.out
    )
    lines = dict(
        line.removeprefix(f"{tmp_path}/").split(": ", 1) for line in printed.err.splitlines()
    )
    assert lines.keys() >= {"bytes.py", "codec.py", "loop.py", r"a\x00b"}
    assert lines["memory.py"] == "Input/output error"
    assert lines["huge.py"] == "this is larger than 5 MB"
    assert lines["pipe.py"] == "this is no regular file"
    assert lines["absent"] == "No such file or directory"
    assert main([str(tmp_path / "absent")]) == 2
    assert "nothing" not in capsys.readouterr().out


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_full_disk_is_one_line_on_standard_error(tmp_path: Path, option: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    path = tmp_path / "program.py"
    path.write_text("import gearman.errors\n" * 1000)
    with open("/dev/full", "wb") as full:
        ran = run(*option, str(path), stdout=full)
    assert (ran.returncode, ran.stderr) == (
        2,
        "python -m gearman_sync.migrate: can't write the findings: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full", "| head -1"])
def test_closed_stream_prints_no_traceback(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "program.py"
    path.write_text("import gear\n" * 3000)
    ran = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "gearman_sync.migrate", path],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert ran.returncode == (0 if "head" in closed else 1)
    assert ran.stderr == ""


def test_tool_needs_nothing_but_python() -> None:
    packages = Path(gearman_proto.__file__).parents[1]
    command = [sys.executable, "-S", "-m", "gearman_sync.migrate", "--help"]
    ran = subprocess.run(command, cwd=packages, capture_output=True, check=True, timeout=120)
    assert ran.stdout.startswith(b"usage: python -m gearman_sync.migrate")

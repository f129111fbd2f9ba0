"""The findings of ``python -m gearman_sync.migrate``, and its output."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gearman_proto
from gearman_sync.cli.migrate import _names as names
from gearman_sync.cli.migrate._program import Program
from gearman_sync.cli.migrate._report import main
from gearman_sync.cli.migrate._rules import RULES
from gearman_sync.cli.migrate._sources import Source
from tests.support import require_module

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")

#: Programs. A line's comment names the rule that applies to the line. Other lines are sound.
#: ``# NAME.py`` begins another file.
PROGRAMS = {
    "imports": """
import gearman.errors  # import-module
from gearman.client import GearmanClient  # import-module
from gearman import connection_manager  # import-module
from gearman import GearmanWorker, JOB_COMPLETE, errors
from gearman.io import get_connection_poller  # inner-used
from gearman import Oops  # import-unknown
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
    def establish_worker_connections(self):  # worker-poll
        return []
    def handle_error(self, connection):  # inner-overridden
        super().handle_error(connection)  # inner-used
    def on_job_execute(self, job):
        return job.data == "x"  # data-compared
class Client(GearmanClient):
    def __init__(self):
        self.updates = []  # name-taken
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
rows = admin.get_status()
json.dumps([rows])  # row-is-dict
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
        request.data_updates.append("x")  # request-fixed
        request.status["last_time_received"]  # status-last-time
        request.job.to_dict()  # job-to-dict
        request.mine = request.data_updates.popleft()
        known.result == "x"  # data-compared
        other.result = other.to_dict()
        for each in self.client.submit_multiple_jobs([]):
            each.result == "OK"  # data-compared
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
def task(gearman_worker, gearman_job):
    data = gearman_job.data
    data == "x"  # data-compared
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
""",
    "callbacks": """
import gearman
worker = gearman.GearmanWorker()
def short(): ...
def of_job(job): ...
def plain(worker, item):
    item.data == "x"  # data-compared
async def asynchronous(worker, job): ...
def more(worker, job, extra=1): ...
def any_number(*arguments): ...
def keyword(worker, job, *, extra): ...
@decorated
def wrapped(job): ...
worker.register_task("t", lambda one, two: two.data.startswith("x"))  # data-as-text
worker.register_task("t", short)  # callback-parameters
worker.register_task("t", of_job)
worker.register_task("t", keyword)  # callback-parameters
worker.register_task("t", asynchronous)  # callback-async
worker.register_task("t", callback_function=plain)  # register-keyword
worker.register_task("t", more)
worker.register_task("t", any_number)
worker.register_task("t", wrapped)
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
    "other_libraries": """
import gear  # gear
class Client(gear.Client):  # gear
    def run(self):
        self.finished = 1
    def handleDisconnect(self, job):  # gear
        self.finished = 2
client = gear.Client("scheduler")  # gear
client.addServer("localhost")  # gear
print(other.arguments)
import pygear  # pygear
from aiogear import Client  # aiogear
from aiogearman import create_client  # aiogearman
async def main():
    client = await create_client()
    job = await client.submit(b"t", b"d")  # aiogearman
from gearman import libgearman  # libgearman
from gearman.libgearman import Worker  # libgearman
libgearman.Client().do("t", "x")  # libgearman
""",
    "this_library_and_namesakes": """
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
    "reexported": """
# pkg/gm.py
try:
    import gearman as gearman_lib
except ImportError:
    gearman_lib = None
from gearman import GearmanClient as Client
# use.py
from pkg.gm import Client, gearman_lib
gearman_lib.Task  # api-1x
Client().handle_read(1)  # inner-used
# other.py
import gm
gm.Task
""",
    "derived_in_another_file": """
# base.py
import gearman
class Base(gearman.GearmanWorker):
    pass
# package/__init__.py
from base import Base
# use.py
from .package import Base
class Mine(Base):
    stop = 1  # name-taken
# other.py
from elsewhere import Mine
class Worker(Mine):
    stop = 1
""",
    "encoder_in_another_file": """
# use.py
import gearman
def do(worker, job):
    return job.data == 'x'
# encoder.py
import gearman
class W(gearman.GearmanWorker):
    data_encoder = JSON
""",
}


def files_of(text: str) -> dict[str, str]:
    first, *others = re.split(r"^# (\S+\.py)\n", text, flags=re.MULTILINE)
    return {"program.py": first, **dict(zip(others[::2], others[1::2]))}


def look(text: str) -> Program:
    return Program(Source(Path(name), code) for name, code in files_of(text).items())


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_has_the_findings_of_its_comments(name: str) -> None:
    expected = {
        (file, number, match[1])
        for file, code in files_of(PROGRAMS[name]).items()
        for number, line in enumerate(code.splitlines(), 1)
        if (match := re.search(r"  # ([a-z0-9-]+)$", line))
    }
    program = look(PROGRAMS[name])
    assert {(each.file, each.line, each.rule) for each in program.findings} == expected
    assert program.problems == []


def test_every_rule_is_in_a_program() -> None:
    assert RULES.keys() == set(re.findall(r"  # ([a-z0-9-]+)\n", "".join(PROGRAMS.values())))


def test_names_of_gear_get_a_replacement() -> None:
    require_module("gear")
    gear = importlib.import_module("gear")
    classes = (gear.Client, gear.Worker, gear.Server, gear.Connection, gear.WorkerJob)
    known = {
        *dir(gear),
        *dir(gear.Job("task", b"")),
        *(name for each in classes for name in dir(each)),
    }
    assert names.GEAR.keys() <= known
    for name, advice in names.GEAR.items():
        (finding,) = look(f"from gear import {name}").findings
        assert finding.as_dict()["do"] == advice


def test_deep_code_is_read_or_reported() -> None:
    chain = ".filter(job).limit(1)" * 40
    (finding,) = look(f"import gearman\nquery{chain}\ngearman.frob\n").findings
    assert (finding.line, finding.rule) == (3, "import-unknown")
    for text in ("x" + ".y" * 1_200, "x" + ".y" * 20_000, "-" * 50_000 + "1"):
        problems = look(f"import gearman\nz = {text}\n").problems
        assert problems in ([], ["program.py: this is nested too deeply to be read"])


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    look("import gearman\n" + text)


# The documentation page.


def test_page_has_all_rules() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (install|change) \|", PAGE, re.MULTILINE))
    assert rows == {key: verdict for key, (verdict, _, _) in RULES.items()}


@pytest.mark.parametrize("table", ["MODULES", "OLD_NAMES"])
def test_page_has_all_names(table: str) -> None:
    mentioned = {name.rpartition(".")[2] for name in re.findall(r"[\w.]+", PAGE)}
    assert {name.lstrip(".") for name in getattr(names, table)} <= mentioned
    assert set(names.ALL_MODULES) <= mentioned


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

INSTALLED = "gearman_sync.install_as_gearman()\n"
TO_PYTHON_3 = "port to Python 3, then run this again."


@pytest.mark.parametrize(
    ("text", "status", "last"),
    [
        ("import gearman", 0, 'nothing differs: "import gearman_sync as gearman" in place of'),
        ("import gearman.errors", 0, 'add "import gearman_sync; gearman_sync.install_as_gearman()'),
        ("import py3gearman.job", 0, 'add "import gearman_sync; gearman_sync.install_as_gearman("'),
        (
            "import py3gearman\ndef do(worker, job):\n    return 'got ' + job.data",
            0,
            'add "import gearman_sync; gearman_sync.install_as_gearman("',
        ),
        ("import gearman\ngearman.Task", 1, 'write "import gearman_sync as gearman" in'),
        ("import gear", 1, "rewrite what is listed; docs/howto/migrating.md"),
        ("print 1", 0, "nothing: no file uses a library"),
        (INSTALLED + "import gearman.errors", 0, "nothing: the program calls install_as_gearman()"),
        (INSTALLED + "import gearman.io", 1, "change by hand what is listed as such: the program"),
        ("from libra.gear import Worker\nprint 1", 0, "nothing: no file uses a library"),
        ("import gearman\nxrange(3)", 1, TO_PYTHON_3),
        ("import os, gearman\nprint 'hello'", 1, TO_PYTHON_3),
    ],
)
def test_summary_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, last: str
) -> None:
    path = tmp_path / "a b.py"
    path.write_text(text)
    assert main([str(path)]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    summary = printed.out.partition("Next: ")[2]
    assert summary.startswith(last)
    if last == TO_PYTHON_3:
        assert summary.endswith(f"\n    2to3 --write --nobackups '{path}'\n")


def test_folder_is_searched_for_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "a.py": "import gearman.errors\nimport gearman.io\n",
        "script": "#!/usr/bin/env python3\nimport gearman\n",
        **dict.fromkeys(("data", "data.txt"), "no script\n"),
        **dict.fromkeys((".hidden.py", "__pycache__/a.py", "venv/b.py"), "import gearman.io\n"),
        "venv/pyvenv.cfg": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path), str(tmp_path / "folder")]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == (
        "2 files read, 2 with a Gearman library; 1 to change by hand, "
        "1 that install_as_gearman() takes care of."
    )
    assert main([str(tmp_path / "empty")]) == 0
    assert "there is no Python in this directory" in capsys.readouterr().err


def test_json_option_prints_an_object_for_each_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "program.py"
    path.write_text("import gearman\nrequest.data_updates\ngearman.Task\n")
    assert main(["--json", str(path)]) == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "file": str(path),
            "line": 3,
            "rule": "api-1x",
            "verdict": "change",
            "what": "gearman.Task is of python-gearman 1.x",
            "do": "use client.submit_job(task, data)",
        }
    ]


def test_unreadable_files_get_a_line_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "good.py": b"import gearman.errors\n",
        "latin.py": b"# -*- coding: latin-1 -*-\nimport gearman.errors #\xe4\n",
        "bytes.py": b"\xff\xfe\x00 import gearman",
        "codec.py": b"# -*- coding: klingon -*-\nimport gearman\n",
        "nul.py": b"import gearman\n\0\n",
        "huge.py": bytes(5_000_001),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    # Even root can't read the first bytes of this file.
    (tmp_path / "memory.py").symlink_to("/proc/self/mem")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
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


COMMAND = (sys.executable, "-m", "gearman_sync.migrate")


def test_program_is_not_run_and_its_text_is_escaped(tmp_path: Path) -> None:
    text = "raise SystemExit('it was run')\nimport gearman\ngearman.Task['\x1b[2Jx\u202e']\n"
    (tmp_path / "a\x1b[31m.py").write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [*COMMAND, tmp_path, "absent\x1b[1m"],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "it was run" not in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr
    assert r"a\x1b[31m.py:3: change: gearman.Task" in ran.stdout
    assert r"absent\x1b[1m: No such file or directory" in ran.stderr


@pytest.mark.parametrize(
    ("redirection", "status", "printed"),
    [
        (">&-", 1, ""),
        ("2>&-", 1, ""),
        ("2>/dev/full", 1, ""),
        ("| head -1", 0, ""),
        (">/dev/full", 2, "can't write the findings: No space left on device\n"),
    ],
)
def test_closed_or_full_stream_prints_no_traceback(
    tmp_path: Path, redirection: str, status: int, printed: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text("import gear\n" * 3000)
    ran = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, path],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    said = ran.stderr.removeprefix("python -m gearman_sync.migrate: ")
    assert (ran.returncode, said) == (status, printed)


def test_tool_needs_nothing_but_python() -> None:
    packages = Path(gearman_proto.__file__).parents[1]
    command = [sys.executable, "-S", "-m", "gearman_sync.migrate", "--help"]
    ran = subprocess.run(command, cwd=packages, capture_output=True, check=True)
    assert ran.stdout.startswith(b"usage: python -m gearman_sync.migrate")

"""``gearmanctl conformance``: output, files and exit status."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import pytest

import gearman_sync
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.testing.conformance.case import PROFILES, Verdict
from gearman_proto.testing.conformance.judge import Outcome
from gearman_proto.testing.conformance.suites import SUITES
from gearman_proto.wire.packets import EchoRes
from gearman_sync.cli.app import run
from gearman_sync.testing import Recording
from gearman_sync.testing.conformance import expected
from gearman_sync.testing.conformance.reports import Report
from gearman_sync.testing.recording import Element
from tests.cli.support import PROGRAM, Running, command_line, is_alive
from tests.cli.terminal import Terminal
from tests.support import eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A quick case.
ECHO: Final = "wire/echo/1"


FORGETFUL: Final = """
import sys, gearman_sync
address, function, payload = sys.argv[1:]
gearman_sync.GearmanClient([address]).submit_job(function, payload)
"""


@pytest.fixture(scope="module")
def right() -> Iterator[str]:
    """The address of a correct server."""
    with gearman_sync.JobServer() as server:
        yield "{}:{}".format(*server.address)


@pytest.fixture(scope="module")
def wrong() -> Iterator[str]:
    """The address of a server that changes the NULs in an ECHO_REQ."""

    def answer(engine: Any, link: Any, _: Any, args: Any, __: float) -> None:
        engine._send(link, EchoRes, [args[0].replace(b"\0", b"-")])

    with contextlib.ExitStack() as stack:
        # An engine looks its methods up when its server starts, so later servers are correct.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ServerEngine, "_on_echo", answer)
            server = stack.enter_context(gearman_sync.JobServer())
        yield "{}:{}".format(*server.address)


def tried(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit status and the output."""
    status = run(["conformance", *words])
    printed = capfd.readouterr()
    return status, printed.out, printed.err


def judged(
    capfd: pytest.CaptureFixture[str], address: str, *words: str, only: str = ECHO
) -> tuple[int, str]:
    """Return the exit status and the output for one case; check that no error is printed."""
    status, out, err = tried(capfd, "server", address, "--only", only, "--timeout", "5", *words)
    assert not err
    return status, out


# Output formats.


def test_command_with_a_pass_exits_with_0(right: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert judged(capfd, right) == (0, f"1 case of {right}: 1 pass\n")
    assert judged(capfd, right, "-v")[1].startswith(f"pass         {ECHO}  ECHO_REQ is answered")
    last = judged(capfd, right, "--markdown")[1].splitlines()[-1]
    assert last.startswith(f"| `{ECHO}` | must | ECHO_REQ is answered")


def test_command_with_a_failure_exits_with_1(wrong: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out = judged(capfd, wrong)
    assert status == 1
    pattern = rf"""fail         {ECHO}  .*
    must; ECHO_REQ: .*
.*expected EchoRes\(data=b'.*and got a protocol error \(ECHO_RES answers nothing\)
(?s:.*)client   -> REQ ECHO_REQ.*\[00524551000000100000000461006200\]
(?s:.*)client   <- RES ECHO_RES(?s:.*)
1 case of {wrong}: 1 fail
"""
    assert re.fullmatch(pattern, out), out


def test_json_contains_the_verdicts(wrong: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out = judged(capfd, wrong, "--json")
    assert status == 1
    value = json.loads(out)
    assert value["side"] == "server"
    assert value["counts"] == {"fail": 1}
    assert "options" in value["capabilities"]
    (row,) = value["cases"]
    assert row["id"] == ECHO
    assert row["verdict"] == "fail"
    assert row["exchange"][0]["decoded"].startswith("REQ ECHO_REQ")


def test_reports_omit_the_middle_of_a_long_recording() -> None:
    elements = [Element("client", "client", b"%d" % number) for number in range(1000)]
    case = SUITES["server"].cases[ECHO]
    outcome = Outcome(case, Verdict.FAIL, "one", "two", Recording(elements))
    report = Report("subject", "server", "document", [outcome])
    text = "\n".join(report.lines())
    assert text.count("client   ->") == 50
    assert "... 950 more; --trace records all" in text
    (row,) = json.loads(report.to_json())["cases"]
    assert row["exchange"][30] == {"omitted": 950}
    assert row["exchange"][-1]["hex"] == b"999".hex()


def test_junit_contains_the_failures(
    wrong: str, right: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out = judged(capfd, wrong, "--junit")
    assert status == 1
    suite = ET.fromstring(out)
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "1", "failures": "1", "errors": "0", "skipped": "0"}
    ((failure,),) = suite
    assert suite[0].attrib["classname"] == "conformance.server.wire.echo"
    assert failure.tag == "failure"
    assert failure.attrib["message"].startswith("expected EchoRes")
    assert "REQ ECHO_REQ" in (failure.text or "")

    status, out = judged(capfd, right, "--junit", "--without", "echo")
    assert status == 0
    (case,) = ET.fromstring(out)
    assert [node.attrib["message"] for node in case] == ["unsupported: requires echo"]


def test_help_names_the_profiles(capfd: pytest.CaptureFixture[str]) -> None:
    """List the profiles in the help, spelled out so that other commands don't import the suite."""
    status, out, _ = tried(capfd, "--help")
    assert status == 0
    assert f"Required behaviour: {', '.join(PROFILES)}." in " ".join(out.split())


def test_list_prints_the_cases(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = tried(capfd, "list")
    assert status == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == sum(len(suite.cases) for suite in SUITES.values())
    assert all(len(row) == 4 for row in rows)
    assert tried(capfd, "list", "server", "--only", ECHO)[1].count("\n") == 1


# Expected failures.


def test_expected_failures_exit_with_0(
    wrong: str, right: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "failures"
    options = ["--expected-failures", str(path)]
    status, _ = judged(capfd, wrong, *options, "--update")
    assert status == 0
    assert path.read_text().startswith(f"{ECHO} expected EchoRes(")
    path.write_text(f"# why\n{ECHO}  it is a mirror\n")
    status, out = judged(capfd, wrong, *options)
    assert status == 0
    assert out.startswith(f"expected     {ECHO}  ")
    assert "it is a mirror" in out
    # Listed cases that pass.
    status, out = judged(capfd, right, *options)
    assert status == 1
    assert out.startswith(f"stale        {ECHO}  ")
    (case,) = ET.fromstring(judged(capfd, right, *options, "--junit")[1])
    assert case[0].attrib["message"] == "was expected to fail, but did not"
    status, _ = judged(capfd, right, *options, "--update")
    assert status == 0
    assert path.read_text() == ""


def test_varying_case_can_fail_or_pass_and_keeps_its_line(
    wrong: str, right: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "failures"
    path.write_text(f"{ECHO} varies: one reply in ten is lost\n")
    for server in (wrong, right):
        for options in ([], ["--update"]):
            status, out = judged(capfd, server, "--expected-failures", str(path), *options)
            assert status == 0
            assert not out.startswith("stale")
    assert path.read_text() == f"{ECHO} varies: one reply in ten is lost\n"


@pytest.mark.parametrize("line", ["no/such/1 reason", ECHO, f"{ECHO} one\n{ECHO} two"])
def test_list_with_an_error_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "failures"
    path.write_text(line)
    with pytest.raises(ValueError, match="the line needs a case, listed only once, and a reason"):
        expected.load(path, SUITES["server"].cases)


# Traces.


def test_trace_of_a_failure_replays(
    wrong: str, right: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judged(capfd, wrong, "--trace", str(tmp_path))
    path = tmp_path / "wire-echo-1.json"
    recording = Recording.load(path)
    assert recording.name == ECHO
    assert "expected EchoRes" in recording.notes
    status, out, _ = tried(capfd, "server", wrong, "--replay", str(path))
    assert (status, out) == (0, "the exchange matches the recording\n")
    status, out, _ = tried(capfd, "server", right, "--replay", str(path))
    assert status == 1
    assert "expected RES ECHO_RES 'a-b-'" in out


def test_trace_of_a_client_replays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["{address}", "{function}", "{payload}"]
    # The client submits and ignores the outcome of the job.
    forgetful = [sys.executable, "-c", FORGETFUL, *words]
    options = ["--only", "result/plain/1", "--trace", str(tmp_path)]
    status, out, _ = tried(capfd, "client", *options, "--", *forgetful)
    assert status == 1
    assert "expected the output b'result', and got b''" in out
    replay = ["client", "--replay", str(tmp_path / "result-plain-1.json")]
    status, out, _ = tried(capfd, *replay, "--", *forgetful)
    assert (status, out) == (0, "the exchange matches the recording\n")
    status, out, _ = tried(
        capfd, *replay, "--timeout", "0.5", "--", sys.executable, "-c", "pass", "{address}"
    )
    assert status == 1
    assert "element 0, client: REQ OPTION_REQ 'exceptions' did not come" in out


# Usage errors and missing peers.


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["server"], "give an address or a command after --"),
        (["server", "x:1", "--profile", "other"], "there is no profile other"),
        (["server", "x:1", "--update"], "--update needs --expected-failures"),
        (["server", "x:1", "--without", "sense"], "there is no capability sense"),
        (["server", "x:1", "--only", "no/such"], "there is no case no/such"),
        (["server", "x:1", "--json", "--junit"], "give only one of --json, --junit"),
        (["server", "x:1", "--expected-failures", "/no/such/file"], "/no/such/file: No such file"),
        (["server", "x:65536"], "port 65536 is not between 1 and 65535"),
        (["server", "x:1", "--timeout", "0"], "0.0 is not in the range x>=0.01"),
        (["server", "--", sys.executable], "the command has neither {port} nor {address}"),
        (["worker", "x:1"], "there is no program x:1"),
        (["server", "x:1", "--replay", __file__], "is no recording"),
        (["list", "other"], "no case matches; the sides are server"),
        (["list", "--only", "no/such"], "no case matches; the sides are server"),
        (["other"], "'other' is not one of"),
        (["client", "--", "/no/such/program"], "there is no program /no/such/program"),
        (["server", "--", "/no/such/server", "{port}"], "there is no program /no/such/server"),
    ],
)
def test_usage_error_exits_with_2(
    words: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, err = tried(capfd, *words)
    assert status == 2
    assert complaint in err


def test_command_without_a_server_fails(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = tried(capfd, "server", f"127.0.0.1:{free_port()}")
    assert status == 3
    assert "no server listens at 127.0.0.1:" in err
    status, _, err = tried(
        capfd, "server", "--", sys.executable, "-c", "raise SystemExit('no')", "{port}"
    )
    assert status == 3
    assert "does not listen: no" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_stops_the_server_that_it_started(number: int, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    command = ["conformance", "worker", "--", sys.executable, "-c", code, "{address}"]
    process = Running(command_line(*command))
    try:
        eventually(lambda: path.exists() and path.read_text(), "the worker")
        process.signal(number)
        assert process.end().status == 128 + number
    finally:
        process.kill()
    assert not is_alive(int(path.read_text()))


def test_progress_bar_shows_the_number_of_cases(right: str) -> None:
    command = (*PROGRAM, "conformance", "server", right)
    with Terminal(*command) as terminal:
        terminal.wait_until(lambda: re.search(r"total .*[1-9]/[0-9]+ ", terminal.text), "the bar")
        assert terminal.wait_for_end() == 0
        assert "total" not in terminal.text
        assert f"cases of {right}: " in terminal.text

"""The rules: all that the tool can say, as a table.

docs/howto/migrating.md has a row for each of them, under the same key.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Verdict(enum.Enum):
    """What a finding asks for."""

    #: It runs with `install_as_gearman()`. Without that, the line has to change.
    INSTALL = "install"
    #: It has to be changed by hand.
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that is different here.

    Attributes:
        verdict: What it asks for.
        what: What the line does, with ``{code}`` for what is written there.
        do: What to do about it; for INSTALL, without the mode. ``{more}`` is what a table of
            `families` says of the name.
    """

    verdict: Verdict
    what: str
    do: str


_INSTALL: Final = Verdict.INSTALL
_CHANGE: Final = Verdict.CHANGE

RULES: Final[dict[str, Rule]] = {
    # What is imported.
    "import-module": Rule(
        _INSTALL,
        "{code} is a module that only the mode has",
        "{more}",
    ),
    "import-inner": Rule(
        _CHANGE,
        "{code} is an inner part of python-gearman, which is not here",
        "{more}",
    ),
    "import-unknown": Rule(
        _CHANGE,
        "{code} is in no python-gearman 2.x",
        "look for it in docs/howto/migrating.md, or take it from where it really is",
    ),
    "import-distribution": Rule(
        _CHANGE,
        "{code} is the name of a distribution, whose module is called gearman",
        "write import gearman_sync as gearman",
    ),
    "text-module": Rule(
        _INSTALL,
        "the text {code} names a module that only the mode has",
        "{more}",
    ),
    "text-inner": Rule(
        _CHANGE,
        "the text {code} names an inner part of python-gearman, which is not here",
        "{more}",
    ),
    "api-1x": Rule(
        _CHANGE,
        "{code} is of python-gearman 1.x",
        "{more}",
    ),
    "python-2": Rule(
        _CHANGE,
        "Python 3 can't run this: {code}",
        "port the file to Python 3 first, then run this again",
    ),
    # Inner parts.
    "inner-used": Rule(
        _CHANGE,
        "{code} is an inner part of python-gearman, which is not here",
        "{more}",
    ),
    "inner-overridden": Rule(
        _CHANGE,
        "{code} overrides an inner part of python-gearman, and is never called here",
        "{more}",
    ),
    "monkey-patch": Rule(
        _CHANGE,
        "{code} is replaced in the library itself",
        "make a subclass, or pass an argument; see docs/howto/migrating.md for what there is",
    ),
    "attribute-unknown": Rule(
        _CHANGE,
        "{code} is not here",
        "look for it in docs/howto/migrating.md",
    ),
    "argument-unknown": Rule(
        _CHANGE,
        "{code} is an argument that is not taken here",
        "leave it out; see docs/howto/migrating.md",
    ),
    # What the mode has.
    "worker-poll": Rule(
        _INSTALL,
        "{code} is the inside of python-gearman's work()",
        "{more}",
    ),
    "request-queue": Rule(
        _INSTALL,
        "{code} is what python-gearman's client keeps of its requests",
        "leave the line out: there is nothing to tidy up",
    ),
    "wait-any": Rule(
        _INSTALL,
        "{code} is of a fork of python-gearman",
        "iterate over client.as_completed(requests)",
    ),
    "connection-class": Rule(
        _INSTALL,
        "{code} is python-gearman's connection, which only the mode has",
        "use connect_timeout= of the client, and keepalive, keepidle, keepintvl and keepcnt in the "
        "server's dict",
    ),
    "connection-list": Rule(
        _INSTALL,
        "{code} changes the list of servers, which is fixed here",
        "pass all servers when the client or worker is made",
    ),
    "connection-parts": Rule(
        _INSTALL,
        "{code} is of a connection, and connection_list has servers here",
        "use server.address (host and port), and client.shutdown() to close",
    ),
    "admin-connection": Rule(
        _INSTALL,
        "{code} is of an admin client's connection, which only the mode has",
        "leave it out: each call of the admin client connects where it has to",
    ),
    "job-class": Rule(
        _INSTALL,
        "{code} is the class of jobs or of requests, which only the mode has there",
        "import GearmanJob and GearmanJobRequest from gearman_sync",
    ),
    "register-keyword": Rule(
        _INSTALL,
        "{code} is called callback here",
        "pass the callback by position",
    ),
    "job-to-dict": Rule(
        _INSTALL,
        "{code} is only there with the mode",
        "make the dict of job.task, job.handle, job.unique and job.data",
    ),
    "job-empty": Rule(
        _INSTALL,
        "{code} is a job without a task",
        "use GearmanJobRequest.from_handle() or from_unique() to ask for a status; in a test, give "
        "the job a task",
    ),
    "request-of-anything": Rule(
        _INSTALL,
        "{code} is no request that could be submitted",
        "make it of a GearmanJob, with max_attempts of 1 at least",
    ),
    "request-assigned": Rule(
        _INSTALL,
        "{code} is what the library finds out, and can't be assigned",
        "keep your own values elsewhere; in a test, let a JobServer and a worker make the result",
    ),
    "unique-false": Rule(
        _INSTALL,
        "{code} is no name",
        "write unique=None, or leave it out",
    ),
    # Requests.
    "request-job-assigned": Rule(
        _CHANGE,
        "{code} can't be assigned",
        "make another GearmanJobRequest of the job",
    ),
    "updates-changed": Rule(
        _CHANGE,
        "{code} is changed, and has only what came from the worker here",
        "read it with popleft(), or keep your own queue",
    ),
    "status-last-time": Rule(
        _CHANGE,
        "{code} is not in a status here",
        "keep the time_received of the last status yourself",
    ),
    "job-keys": Rule(
        _INSTALL,
        "{code} is no key of a job to submit: ValueError",
        "leave it out; background, max_retries and poll_timeout are arguments of the call",
    ),
    "assertion-caught": Rule(
        _CHANGE,
        "{code} is not raised here for a wrong argument",
        "catch TypeError",
    ),
    "background-default": Rule(
        _CHANGE,
        "{code} is a background job in py3gearman, and a foreground job here, which is waited for",
        "write background=True",
    ),
    # Names and data.
    "name-as-bytes": Rule(
        _INSTALL,
        "{code} takes a name for bytes, and it is str here",
        "write it as str, without decode()",
    ),
    "name-with-bytes": Rule(
        _CHANGE,
        "{code} mixes a name, which is str, with bytes",
        "write the other side as str",
    ),
    "data-compared": Rule(
        _CHANGE,
        "{code} compares data with str, and data is bytes: they are never equal",
        'write b"...", or compare what decode() returns',
    ),
    "data-as-text": Rule(
        _CHANGE,
        "{code} takes data for str, and it is bytes: an error",
        'write b"...", or decode() it first',
    ),
    "data-joined": Rule(
        _CHANGE,
        "{code} puts data together with str, and data is bytes: TypeError",
        "decode() it first",
    ),
    "data-shown": Rule(
        _CHANGE,
        "{code} makes text of data, and gets b'...', for data is bytes",
        "decode() it first",
    ),
    "data-to-json": Rule(
        _CHANGE,
        "{code} makes JSON of data, and data is bytes: TypeError",
        "decode() it first",
    ),
    # The worker.
    "callback-parameters": Rule(
        _CHANGE,
        "{code} is called with the worker and the job, and can't be",
        "let it take two arguments: the worker and the job",
    ),
    "callback-async": Rule(
        _CHANGE,
        "{code} is async, and would never run",
        "use gearman_anyio.GearmanWorker, which awaits it, or make it a plain function",
    ),
    # The admin client.
    "row-is-dict": Rule(
        _INSTALL,
        "{code} takes a row for a dict, and it is a record here, which does not change",
        "write dict(row)",
    ),
    "row-file-descriptor": Rule(
        _INSTALL,
        "{code} is a number here, and was text",
        "compare it with a number",
    ),
    "row-job-keys": Rule(
        _INSTALL,
        "{code} is another key here",
        "queued is called retries here, canceled is ignored, enabled is queued, and "
        "get_unique_jobs() returns the uniques themselves",
    ),
    "pid-as-text": Rule(
        _INSTALL,
        "{code} takes the server's pid for text, and it is a number here",
        "use the number",
    ),
    "maxqueue-as-text": Rule(
        _CHANGE,
        "{code} is text, and send_maxqueue takes a number",
        "write a number",
    ),
    # Other libraries.
    "gear": Rule(
        _CHANGE,
        "{code} is of gear",
        "{more}",
    ),
    "aiogear": Rule(
        _CHANGE,
        "{code} is of aiogear",
        "{more}",
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A line, and the rule that applies to it.

    Attributes:
        file: The file, as it was found.
        line: The number of the line.
        rule: The key of the rule.
        code: What is written there.
        more: What is said of this name in particular.
    """

    file: str
    line: int
    rule: str
    code: str
    more: str = ""

    @property
    def verdict(self) -> Verdict:
        """What it asks for."""
        return RULES[self.rule].verdict

    @property
    def what(self) -> str:
        """What the line does."""
        return RULES[self.rule].what.replace("{code}", self.code)

    @property
    def do(self) -> str:
        """What to do about it."""
        return RULES[self.rule].do.replace("{more}", self.more)

"""The table of rules. docs/howto/migrating.md has a row for each rule, under the same key."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ._names import OTHERS

INSTALL: Final = "install"  # Runs with install_as_gearman(); otherwise it has to change.
CHANGE: Final = "change"  # Has to be changed by hand.

#: Two lines for each rule: first its key, verdict and problem (with ``{code}``), then the cure. For
#: INSTALL, the cure is for programs without the mode. ``{more}`` is the advice for the name in the
#: code.
_TABLE: Final = """
import-module install: {code} is a module that only the mode has
    {more}
import-unknown change: {code} is in no python-gearman 2.x
    look for it in docs/howto/migrating.md, or take it from where it really is
import-distribution change: {code} is the name of a distribution, whose module is called gearman
    write import gearman_sync as gearman
api-1x change: {code} is of python-gearman 1.x
    {more}
python-2 change: Python 3 can't run this: {code}
    port the file to Python 3 first, then run this again
inner-used change: {code} is an inner part of python-gearman, which is not here
    {more}
inner-overridden change: {code} overrides an inner part of python-gearman, and is never called here
    {more}
name-taken change: {code} hides what the library's class has under this name
    rename it
worker-poll install: {code} is the inside of python-gearman's work()
    use work(), with after_poll(), after_job(), stop() and max_outage=
request-queue install: {code} is what python-gearman's client keeps of its requests
    leave the line out: there is nothing to tidy up
wait-any install: {code} is of a fork of python-gearman
    iterate over client.as_completed(requests)
connection-class install: {code} is python-gearman's connection, which only the mode has
    use connect_timeout= of the client, and keepalive and keepidle in the server's dict
connection-list install: {code} changes the list of servers, which is fixed here
    pass all servers when the client or worker is made
admin-connection install: {code} is of an admin client's connection, which only the mode has
    leave it out: each call of the admin client connects by itself
job-class install: {code} is the class of jobs or of requests, which only the mode has there
    import GearmanJob and GearmanJobRequest from gearman_sync
register-keyword install: {code} is called callback here
    pass the callback by position
job-to-dict install: {code} is only there with the mode
    make the dict of job.task, job.handle, job.unique and job.data
request-assigned install: {code} is what the library finds out, and can't be assigned
    keep your own values elsewhere; in a test, let a JobServer and a worker make the result
request-fixed change: {code} can't be changed here
    make another GearmanJobRequest of the job, and keep updates in a queue of your own
status-last-time change: {code} is not in a status here
    keep the time_received of the last status yourself
background-default change: {code} is a background job in py3gearman, and waited for here
    write background=True
name-as-bytes install: {code} takes a name for bytes, and it is str here
    write it as str, without decode()
data-compared change: {code} compares data with str, and data is bytes: they are never equal
    write b"...", or compare what decode() returns
data-as-text change: {code} takes data for str, and it is bytes: an error
    write b"...", or decode() it first
data-shown change: {code} makes text of data, and gets b'...', for data is bytes
    decode() it first
callback-parameters change: {code} is called with the worker and the job, and can't be
    let it take the worker and the job, or the job alone
callback-async change: {code} is async, and would never run
    use gearman_anyio.GearmanWorker, which awaits it, or make it a plain function
row-is-dict install: {code} takes a row for a dict, and it is a record here, which does not change
    write dict(row)
"""


def _rules() -> dict[str, tuple[str, str, str]]:
    lines = iter(_TABLE.strip().splitlines())
    rules = {library: (CHANGE, f"{{code}} is of {library}", "{more}") for library in OTHERS}
    for line, do in zip(lines, lines):
        head, _, what = line.partition(": ")
        key, verdict = head.split()
        rules[key] = verdict, what, do.strip()
    return rules


#: Verdict, problem and cure, by key.
RULES: Final = _rules()


class Finding(NamedTuple):
    """A line of a file, and the rule that its `code` matches."""

    file: str
    line: int
    rule: str
    code: str
    more: str = ""
    #: True if the mode makes the data str, as the program's library did.
    is_text: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as ``--json`` prints it."""
        verdict, what, do = RULES[self.rule]
        return {
            "file": self.file,
            "line": self.line,
            "rule": self.rule,
            "verdict": INSTALL if self.is_text else verdict,
            "what": what.replace("{code}", self.code),
            "do": do.replace("{more}", self.more),
        }

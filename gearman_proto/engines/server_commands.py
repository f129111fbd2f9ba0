"""The text commands of a job server, as gearmand answers them: a line in, the reply out.

What gearmand gets wrong is put right: ``create function`` keeps the last letter whatever ends the
line, ``drop function`` takes only the very name and never one that has jobs, ``cancel job`` ends
the job, addresses are whole. ``shutdown`` is Perl's and the document's; gearmand 1.1.21 has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from gearman_proto.wire.packets import number

from .jobqueue import HIGH, LOW, NORMAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .jobqueue import Function, JobQueue, QueuedJob

_OK: Final = b"OK\r\n"
# In names they would look like the end of a field or a line.
_CONTROLS: Final = re.compile(rb"[\0-\x1f\x7f]")


class Listed(Protocol):
    """What the list of workers shows of a connection."""

    number: int
    peer: str
    client_id: bytes
    abilities: dict[Function, float]


class Commanded(Protocol):
    """What commands are about: a job server."""

    pid: int
    version: str
    queue: JobQueue

    @property
    def links(self) -> Iterable[Listed]:
        """Its connections."""

    def cancel(self, job: QueuedJob) -> None:
        """End a job, whatever its state."""

    def retire(self, *, graceful: bool) -> None:
        """End, when what is to be sent has been sent; `graceful`: when no job is left."""


def reply(server: Commanded, line: bytes) -> bytes:
    """Carry out a command, and return its reply."""
    # A leading blank makes an empty command; the words of the others are separated by any number.
    first = line.split(b" ", 1)[0]
    words = [word for word in line.split(b" ") if word]
    command = _COMMANDS.get(first.lower())
    answer = command(server, words) if command is not None else None
    if answer is None:
        return b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % first
    return answer


def _list(lines: Iterable[bytes]) -> bytes:
    return b"".join(lines) + b".\n"


def _shown(name: bytes) -> bytes:
    return _CONTROLS.sub(b"?", name)


def _incomplete(command: bytes) -> bytes:
    text = b"An+incomplete+set+of+arguments+was+sent+to+this+command+"
    return b"ERR INVALID_ARGUMENTS %b%b\r\n" % (text, command)


def _version(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK %b\n" % server.version.encode()


def _getpid(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK %d\n" % server.pid


def _verbose(server: Commanded, words: list[bytes]) -> bytes:
    return b"OK ERROR\n"


def _status(server: Commanded, words: list[bytes]) -> bytes:
    return _list(
        b"%b\t%d\t%d\t%d\n" % (_shown(f.name), f.total, f.running, len(f.workers))
        for f in server.queue.functions.values()
    )


def _prioritystatus(server: Commanded, words: list[bytes]) -> bytes:
    lines = []
    for function in server.queue.functions.values():
        counts = [len(queue) for queue in function.queues]
        counts[NORMAL] += function.delayed
        lines.append(
            b"%b\t%d\t%d\t%d\t%d\n"
            % (
                _shown(function.name),
                counts[HIGH],
                counts[NORMAL],
                counts[LOW],
                len(function.workers),
            )
        )
    return _list(lines)


def _workers(server: Commanded, words: list[bytes]) -> bytes:
    lines = []
    for link in server.links:
        names = b"".join(b" " + _shown(function.name) for function in reversed(link.abilities))
        head = b"%d %b %b" % (link.number, link.peer.encode(), _shown(link.client_id))
        lines.append(b"%b :%b\n" % (head, names))
    return _list(lines)


def _maxqueue(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) < 2:
        return _incomplete(words[0])
    sizes = [max(number(word), 0) for word in words[2:5]]
    if len(sizes) == 1:
        sizes *= 3
    high, normal, low = (*sizes, 0, 0, 0)[:3]
    function = server.queue.functions.get(words[1])
    if function is not None:
        function.limits = (high, normal, low)
    return _OK


def _show(server: Commanded, words: list[bytes]) -> bytes | None:
    what = [word.lower() for word in words[1:]]
    if not what:
        return None
    if what[:1] == [b"jobs"]:
        return _list(
            b"%b\t%d\t%d\t%d\n" % (job.handle, job.losses, not job.wanted, job.background)
            for job in server.queue.jobs.values()
        )
    if what[:2] == [b"unique", b"jobs"]:
        return _list(_shown(job.unique) + b"\n" for job in server.queue.jobs.values())
    return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"


def _cancel(server: Commanded, words: list[bytes]) -> bytes | None:
    what = [word.lower() for word in words[1:2]]
    if not what or (what == [b"job"] and len(words) == 2):
        return None
    if what != [b"job"] or len(words) != 3:
        return b"ERR UNKNOWN_ERROR\r\n"
    job = server.queue.jobs.get(words[2])
    if job is None:
        return b"ERR UNKNOWN_JOB\r\n"
    server.cancel(job)
    return _OK


def _create(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) != 3 or words[1].lower() != b"function":
        return _incomplete(words[0])
    if not server.queue.has_room(len(words[2])):
        return b"ERR CREATE_FUNCTION %b\r\n" % words[2]
    server.queue.function(words[2])
    return _OK


def _drop(server: Commanded, words: list[bytes]) -> bytes:
    if len(words) != 3 or words[1].lower() != b"function":
        return _incomplete(words[0])
    function = server.queue.functions.get(words[2])
    if function is None:
        return b"ERR function not found\r\n"
    if function.workers or function.total:
        return b"ERR there are still connected workers or executing clients\r\n"
    server.queue.drop_function(function)
    return _OK


def _shutdown(server: Commanded, words: list[bytes]) -> bytes:
    graceful = [word.lower() for word in words[1:]] == [b"graceful"]
    if words[1:] and not graceful:
        return _incomplete(words[0])
    server.retire(graceful=graceful)
    return _OK


_COMMANDS: Final[dict[bytes, Callable[[Commanded, list[bytes]], bytes | None]]] = {
    b"version": _version,
    b"getpid": _getpid,
    b"verbose": _verbose,
    b"status": _status,
    b"prioritystatus": _prioritystatus,
    b"workers": _workers,
    b"maxqueue": _maxqueue,
    b"show": _show,
    b"cancel": _cancel,
    b"create": _create,
    b"drop": _drop,
    b"shutdown": _shutdown,
}

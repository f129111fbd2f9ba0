"""Any text is parsed, refused with a documented exception, or printed, in any pieces alike.

The first byte of the input chooses the kind of text. ALLOWED lists the exceptions.

* Reply to an admin command: whole, byte by byte and in pieces, it gives the same value or error. A
  list that is formatted like a server's reply is parsed to an equal list, and has the same bytes.
* Names of functions: a list that a server has formatted contains these names.
* Line for our server: an admin client can parse the reply, which consists of whole lines. This also
  holds for a server that has functions, jobs and workers.
* Name for a command of an admin client: the server finds the same name in the line.
* Address of a server, or a list of addresses: parsing the printed form gives the same address.
* Foreign text: its printable form is one printable line, and is its own printable form.
* Lines of a file for ``gearmanctl submit --lines``: the chunks do not matter, and no byte is lost.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import text
from gearman_proto.address import parse_address, parse_host_list
from gearman_proto.engines.server.commands import Listing, reply
from gearman_proto.errors import RemoteProtocolError, ServerError
from gearman_proto.names import to_text
from gearman_proto.printable import printable
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    Role,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    TextLine,
    number,
)
from gearman_proto.wire.text import Command, Reply
from gearman_sync.cli.lines import split_lines
from tests.engines.server_harness import World

from . import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

#: The exceptions of each operation. (For a reply they are ServerError and RemoteProtocolError.)
ALLOWED: Final[dict[str, tuple[type[Exception], ...]]] = {
    "a name or a number of a command": (TypeError, ValueError),
    "an address": (TypeError, ValueError),
    "lines of a file": (ValueError,),
}
_COMMANDS: Final[list[Command[Any]]] = [
    text.status(),
    text.prioritystatus(),
    text.workers(),
    text.show_jobs(),
    text.show_unique_jobs(),
    text.version(),
    text.getpid(),
    text.verbose(),
    text.cancel_job("H:1"),
    text.shutdown(graceful=True),
]
#: Commands whose lists are formatted exactly as they were received.
_FAITHFUL: Final = (text.status(), text.prioritystatus(), text.show_unique_jobs())
_NAMED: Final[list[Callable[[bytes], Command[Any]]]] = [
    text.cancel_job,
    text.create_function,
    text.drop_function,
    lambda name: text.maxqueue(name, 7),
]
_MAX_SIZE: Final = 2000


def _read(command: Command[Any], data: bytes, step: int) -> Any:
    """Parse `data`, received in pieces of `step` bytes, as the reply to `command`.

    Return a value or an error.
    """
    connection = Connection(Role.CLIENT)
    connection.send(command.event)
    answer = Reply(command, _MAX_SIZE)
    try:
        for at in range(0, len(data), step):
            connection.receive_data(data[at : at + step])
            while (event := connection.next_event()) is not NEED_DATA:
                if not isinstance(event, TextLine):
                    return type(event)
                if answer.receive_line(event):
                    return answer.value()
    except ServerError as error:
        return error.code, error.text, ServerError
    except RemoteProtocolError:
        return RemoteProtocolError  # The text of the error depends on the bytes received so far.
    return None


def check_reply(data: bytes) -> None:
    """Check the reply to a command."""
    command = _COMMANDS[data[0] % len(_COMMANDS)] if data else _COMMANDS[0]
    data = data[1:]
    value = _read(command, data, max(len(data), 1))
    for step in (1, 5):
        if (pieces := _read(command, data, step)) != value:
            raise Failure(f"{command!r}: whole {value!r}, in pieces of {step} {pieces!r}")
    if command.is_list and isinstance(value, tuple) and value[-1:] != (ServerError,):
        _check_list(command, value)
        if command in _FAITHFUL:
            _check_bytes(command, data, value)


def _check_list(command: Command[Any], value: tuple[Any, ...]) -> None:
    lines = b"".join(_line(each) for each in value) + b".\n"
    if len(lines) + 40 * lines.count(b"\n") <= _MAX_SIZE:
        again = _read(command, lines, len(lines))
        if again != value:
            raise Failure(f"{command!r}: {value!r} is written as {lines!r}, and read as {again!r}")


def _check_bytes(command: Command[Any], data: bytes, value: tuple[Any, ...]) -> None:
    """Check that a list keeps all bytes, except leading zeros of numbers and the ends of lines."""
    lines = data.split(b"\n")
    end = next(at for at, line in enumerate(lines) if line in (b".", b".\r"))
    listed = b"".join(line + b"\n" for line in lines[:end])
    written = b"".join(_line(each) for each in value)
    if _plain(listed) != _plain(written):
        raise Failure(f"{command!r}: {listed!r} is read as {value!r}")


def check_names(data: bytes) -> None:
    """Check that parsing a list, as a server formats it, finds all names."""
    names = [
        text.FunctionStatus(to_text(name), 1, 20, 0)
        for name in data.replace(b"\0", b"").split(b";")
    ]
    written = b"".join(_line(each) for each in names)
    # Skip ambiguous lists, where a name looks like a row, the end, or ERR.
    rows = re.findall(rb"\t\d+\t\d+\t\d+\r?$", written, re.MULTILINE)
    if len(rows) > len(names) or re.search(rb"^\.\r?$|\AERR( |\r?$)", written, re.MULTILINE):
        return
    if len(written) + 40 * written.count(b"\n") <= _MAX_SIZE:
        found = _read(text.status(), written + b".\n", len(written))
        if found != tuple(names):
            raise Failure(f"{names!r} are written as {written!r}, and read as {found!r}")


def _plain(listed: bytes) -> bytes:
    return re.sub(rb"(?<=\t)0+(?=\d)", b"", re.sub(rb"(\t\d+)\r\n", rb"\1\n", listed))


def _line(each: Any) -> bytes:
    """Return an element of a list as a server formats it."""
    if isinstance(each, str):
        return each.encode("utf-8", "surrogateescape") + b"\n"
    if isinstance(each, text.WorkerStatus):
        names = [each.ip, each.client_id, ":", *each.tasks]
        line = " ".join([str(each.file_descriptor), *names])
    else:
        line = "\t".join(str(int(v) if isinstance(v, bool) else v) for v in each.values())
    return line.encode("utf-8", "surrogateescape") + b"\n"


@functools.cache
def _server() -> World:
    """Return a server that has something to list. No line in the test changes that."""
    world = World()
    world.worker(b"f", b"two words", b"\xff\n")
    client = world.connect()
    client.send(SubmitJob(b"f", b"u", b"x"), SubmitJobBg(b"g", b"-", b"x"))
    client.send(SubmitJobEpoch(b"g", b"", b"1900000000", b"x"))
    return world


def check_command(data: bytes) -> None:
    """Check our server's reply to a line."""
    line = data.replace(b"\n", b"")
    world = World() if line.lower().startswith((b"c", b"d", b"m", b"shut")) else _server()
    answer = reply(world.engine, line)
    whole = b"".join(piece for piece, _ in answer) if isinstance(answer, Listing) else answer
    if not whole.endswith(b"\n"):
        raise Failure(f"{line!r} is answered with {whole!r}")
    words = [word for word in line.lower().split(b" ") if word]
    for command in _COMMANDS:
        if words == command.line.split(b" ") and line[:1] != b" ":
            value = _read(command, whole, len(whole))
            is_error = isinstance(value, tuple) and value[-1:] == (ServerError,)
            if value is RemoteProtocolError or (is_error and words[0] != b"cancel"):
                raise Failure(f"{line!r} is answered with {whole!r}, which is read as {value!r}")
    world.check()


def check_name(data: bytes) -> None:
    """Check that a server finds the name that a command was created with."""
    make = _NAMED[data[0] % len(_NAMED)] if data else _NAMED[0]
    name = data[1:]
    try:
        command = make(name)
        sent = Connection(Role.CLIENT).send(command.event)
    except ALLOWED["a name or a number of a command"]:
        return
    server = Connection(Role.SERVER)
    server.receive_data(sent)
    event = server.next_event()
    if not isinstance(event, TextLine) or name not in event.line.split(b" ")[1:3]:
        raise Failure(f"{name!r} came out of {event!r}")
    if server.next_event() is not NEED_DATA:
        raise Failure(f"{name!r} is more than one line: {sent!r}")
    # The server ignores what follows the number.
    if abs(number(name)) >= 10**19:
        raise Failure(f"{name!r} is {number(name)}")


def check_address(data: bytes) -> None:
    """Check the parser of server addresses."""
    spec: Any = data.decode("utf-8", "surrogateescape")
    host, comma, port = spec.partition(",")
    specs: list[Any] = [spec, data]
    if comma:
        specs += [(host, port), {"host": host, "port": port}, {"host": host, port: 1}]
        if port.isascii() and port.isdigit():
            specs.append((host, int(port[:9])))
    for each in specs:
        try:
            address = parse_address(each)
        except ALLOWED["an address"]:
            continue
        again = parse_address(str(address))
        if (again.host, again.port) != (address.host, address.port):
            raise Failure(f"{each!r} is {address!r}, which is written as {str(address)!r}: {again}")
        if parse_host_list([each, str(address)])[0] != address:
            raise Failure(f"{each!r} in a list is another")
    try:
        parse_host_list(spec.split(" "))
        parse_host_list(spec)
    except ALLOWED["an address"]:
        pass


def check_shown(data: bytes) -> None:
    """Check the printable form of foreign text."""
    line = printable(data)
    if not line.isprintable() or printable(line) != line:
        raise Failure(f"{data!r} is shown as {line!r}")
    line.encode()
    if "\\udc" in line and b"\\udc" not in data:
        raise Failure(f"{data!r} is shown as {line!r}, which does not tell its bytes")
    if printable(data.decode("utf-8", "surrogateescape")) != line:
        raise Failure(f"{data!r} is shown as {line!r}, but not as text")
    short = printable(data, 5)
    if not line.startswith(short.removesuffix("…")) or not short.isprintable():
        raise Failure(f"{data!r} is cut to {short!r}")


def check_lines(data: bytes) -> None:
    """Check that the lines are the same for any chunks."""
    step = 1 + (data[0] if data else 0)
    data = data[1:]
    outcomes = []
    for size in (max(len(data), 1), 1, step):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        try:
            lines = [line for some in split_lines(chunks, 50) for line in some]
        except ALLOWED["lines of a file"]:
            lines = None
        outcomes.append(lines)
    expected = data.split(b"\n")
    if not expected[-1]:
        del expected[-1]
    right = None if max(map(len, expected), default=0) > 50 else expected
    if outcomes != [right] * 3:
        raise Failure(f"{data!r}: {outcomes!r}, expected {right!r}")


_CHECKS: Final = (
    check_reply,
    check_command,
    check_name,
    check_address,
    check_shown,
    check_lines,
    check_names,
)


def check(data: bytes) -> None:
    """Raise if the invariant does not hold for `data`."""
    _CHECKS[data[0] % len(_CHECKS) if data else 0](data[1:])

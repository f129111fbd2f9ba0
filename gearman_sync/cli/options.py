"""Options that several commands share: servers, functions and durations."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar, get_type_hints

import typer

from gearman_proto.address import ServerAddress, parse_address
from gearman_proto.errors import GearmanError
from gearman_proto.records import replaced
from gearman_proto.tls import FileNames, load_context
from gearman_sync import GearmanAdminClient
from gearman_sync._closing import ClosesOnExit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
ClientT = TypeVar("ClientT", bound=ClosesOnExit)
#: The answer or the error of each server.
Answers: TypeAlias = "list[tuple[ServerAddress, T | GearmanError]]"

#: The environment variable that names the servers, separated by commas. libgearman uses it too.
VARIABLE: Final = "GEARMAN_SERVERS"
_DEFAULT: Final = "localhost:4730"
# Seconds to wait for a completion. The user has pressed a key and is waiting.
_PATIENCE: Final = 0.5
# Names that every shell treats as one plain word. Some shells evaluate a completion, others insert
# it unquoted, and any worker can register any name. A leading "-" would make the name an option.
_COMPLETABLE: Final = re.compile(r"(?!-)[A-Za-z0-9_./:@+,=%-]+")
_FILES: Final = FileNames("--tls-ca", "--tls-cert", "--tls-key", way_out="")


def find_servers(names: Iterable[str] | None) -> list[ServerAddress]:
    """Return the servers of the ``--server`` options, or else of the environment.

    Raises:
        ValueError: A name is not a valid address.
    """
    given = names or filter(None, re.split(r"[\s,]+", os.environ.get(VARIABLE, "")))
    addresses = [parse_address(name) for name in given]
    return list(dict.fromkeys(addresses)) or [parse_address(_DEFAULT)]


def load_files(
    create: Callable[..., ssl.SSLContext], ca: Path | None, cert: Path | None, key: Path | None
) -> ssl.SSLContext:
    """Return the context that `create` makes with the files from the command line.

    Raises:
        ValueError: A file can't be read or has the wrong content.
    """
    ca_certs, certfile, keyfile = (None if path is None else str(path) for path in (ca, cert, key))
    try:
        context: ssl.SSLContext = load_context(create, ca_certs, certfile, keyfile, _FILES)
    except OSError as error:  # Also covers ssl.SSLError.
        raise ValueError(error.strerror or str(error)) from None
    return context


#: The option for the key of a certificate.
KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The private key of the certificate, if it is in a file of its own."
    ),
]


@dataclass
class Servers:
    """The servers that a command uses, from the options that name them."""

    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            "-s",
            metavar="HOST:PORT",
            help="A server, at port 4730 unless given. Repeat it for several servers. Default: "
            f"those in {VARIABLE}, else {_DEFAULT}.",
        ),
    ] = None
    tls: Annotated[
        bool,
        typer.Option(
            "--tls", help="Use TLS, and verify the servers with the system's certificates."
        ),
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Use TLS, and verify the servers with these certificates."
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use TLS, and show this certificate.")
    ] = None
    tls_key: KeyFile = None

    def __post_init__(self) -> None:
        self.addresses: list[ServerAddress] = find_servers(self.server)
        files = self.tls_ca, self.tls_cert, self.tls_key
        if self.tls_key and not self.tls_cert:
            raise ValueError("--tls-key needs --tls-cert")
        if self.tls or any(files):
            context = load_files(ssl.create_default_context, *files)
            self.addresses = [replaced(each, ssl_context=context) for each in self.addresses]

    @contextlib.contextmanager
    def asking(
        self, connect: Callable[[ServerAddress], ClientT]
    ) -> Iterator[Callable[[Callable[[ClientT], T]], Answers[T]]]:
        """Yield a function that queries all servers concurrently.

        A server that is down does not delay the others' answers.

        Args:
            connect: Makes the client of one server. The end of the context closes the clients.
        """
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(len(self.addresses)))
            # The clients are closed before the threads are joined, which ends pending calls on
            # Ctrl-C.
            clients = [stack.enter_context(connect(address)) for address in self.addresses]

            def ask_all(ask: Callable[[ClientT], T]) -> Answers[T]:
                def ask_one(client: ClientT) -> T | GearmanError:
                    try:
                        return ask(client)
                    except GearmanError as error:
                        return error

                return list(zip(self.addresses, pool.map(ask_one, clients)))

            yield ask_all

    def ask_all(self, ask: Callable[[GearmanAdminClient], T], timeout: float) -> Answers[T]:
        """Query all servers concurrently, as in `asking`."""
        with self.asking(lambda address: GearmanAdminClient([address], timeout)) as ask_all:
            return ask_all(ask)


def with_options(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options that are the fields of its first argument, a dataclass.

    typer derives options from a function's parameters.
    """
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    first, *others = (each.replace(kind=keyword) for each in signature.parameters.values())
    kind = first.annotation
    hints = get_type_hints(kind, include_extras=True)
    # The fields of a subclass come before those of its base.
    names = [name for each in kind.__mro__ for name in vars(each).get("__annotations__", ())]
    options = [
        inspect.Parameter(name, keyword, default=getattr(kind, name), annotation=hints[name])
        for name in names
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> T:
        made = kind(**{name: values.pop(name) for name in names})
        return command(made, **values)

    parameters = [*others, *options]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped


def complete_task(incomplete: str) -> list[str]:
    """Return the functions whose names begin with `incomplete` and are safe in every shell.

    Args:
        incomplete: The beginning of the name, as the user has typed it.

    Returns:
        The sorted names, from all servers of the environment that answer at once.
    """
    try:
        answers = Servers().ask_all(lambda client: client.get_status(), _PATIENCE)
    except (GearmanError, ValueError):
        return []  # The user has pressed a key, and can't use an error message.
    names = {
        row.task
        for _, rows in answers
        if not isinstance(rows, GearmanError)
        for row in rows
        if row.task.startswith(incomplete) and _COMPLETABLE.fullmatch(row.task)
    }
    return sorted(names)


def _check_task(task: str) -> str:
    """Return the name of a function.

    Servers accept an empty name, but in a shell an unset variable is the usual cause of one.

    Raises:
        typer.BadParameter: The name is empty.
    """
    if not task:
        raise typer.BadParameter("the name of the function is empty; is a variable not set?")
    return task


#: The argument that names a function.
TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="The function.",
        show_default=False,
        autocompletion=complete_task,
        callback=_check_task,
    ),
]


def check_seconds(value: float | None) -> float | None:
    """Return the value of an option. The bounds of an option do not reject NaN.

    Raises:
        typer.BadParameter: The value is NaN.
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number of seconds.")
    return value


def seconds(what: str, *names: str, least: float = 0) -> Any:
    """Return an option for a number of seconds, with the help text `what`."""
    return typer.Option(*names, metavar="SECONDS", min=least, callback=check_seconds, help=what)

"""``gearmanctl exporter``: serves the metrics of servers to Prometheus."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from gearman_proto.errors import GearmanError, ServerError
from gearman_proto.signals import handled
from gearman_sync import GearmanAdminClient

from . import exits
from .metrics import MAX_FUNCTIONS, Answer, exposition
from .options import Servers, seconds, with_options
from .web import Page, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import ServerAddress

T = TypeVar("T")

_PORT: Final = 9418
# Seconds that a client of the exporter gets, besides the time of two questions to the servers.
_PATIENCE: Final = 10.0
# Size limit of a server's list in bytes, enough for more than 100,000 functions.
_MAX_REPLY_SIZE: Final = 16 * 1024 * 1024


@with_options
def exporter(
    servers: Servers,
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="PORT", min=0, max=65535, help="0: a free port.")
    ] = _PORT,
    max_functions: Annotated[
        int, typer.Option(metavar="N", min=0, help="Maximum number of functions of each server.")
    ] = MAX_FUNCTIONS,
    timeout: Annotated[float, seconds("How long to wait for a server.")] = 5.0,
) -> int:
    """Serve metrics of the servers to Prometheus.

    The metrics are at /metrics, with the names of bakins/gearman-exporter. A server that does not
    answer has gearman_up 0. The page /healthz says whether the exporter itself runs. Ctrl-C and
    SIGTERM end it.

    Examples:
      gearmanctl exporter
      gearmanctl exporter -s one:4730 -s two:4730 --host 0.0.0.0 --port 9418
    """

    def connect(address: ServerAddress) -> GearmanAdminClient:
        return GearmanAdminClient([address], timeout, max_reply_size=_MAX_REPLY_SIZE)

    def on_signal(_number: int) -> None:
        raise KeyboardInterrupt

    try:
        with (
            handled([signal.SIGTERM], on_signal),
            servers.asking(connect) as ask_all,
        ):
            metrics = _Shared(lambda: text_of(ask_all(questions(timeout)), max_functions))
            pages: dict[str, Page] = {"/metrics": metrics, "/healthz": lambda: "ok\n"}
            with WebServer(host, port, pages, 2 * timeout + _PATIENCE) as server:
                name, number = server.server_address[:2]
                where = f"[{name!s}]:{number}" if ":" in str(name) else f"{name!s}:{number}"
                print(f"gearmanctl: http://{where}/metrics", file=sys.stderr, flush=True)  # noqa: T201
                server.serve_forever()
    except KeyboardInterrupt:
        pass  # The requested end.
    except OSError as error:
        reason = os.strerror(errno) if (errno := error.errno or 0) > 0 else error.strerror
        raise exits.Exit(exits.FAILED, f"can't listen at {host}:{port}: {reason}") from None
    return exits.DONE


def questions(timeout: float) -> Callable[[GearmanAdminClient], Answer]:
    """Return a function that asks one server for all that the metrics show.

    Args:
        timeout: Seconds for all questions together, from now on.
    """
    deadline = time.monotonic() + timeout

    def ask(client: GearmanAdminClient) -> Answer:
        def within(question: Callable[[], T]) -> T:
            client.poll_timeout = max(deadline - time.monotonic(), 0)
            return question()

        version = within(client.get_version).removeprefix("OK ")
        functions = within(client.get_status)
        try:
            return Answer(version, functions, within(client.get_priority_status))
        except ServerError:
            return Answer(version, functions)

    return ask


def text_of(
    answers: list[tuple[ServerAddress, Answer | GearmanError]], max_functions: int = MAX_FUNCTIONS
) -> str:
    """Return the metrics that the answers of the servers make."""
    given = {
        str(address): None if isinstance(answer, GearmanError) else answer
        for address, answer in answers
    }
    return exposition(given, max_functions)


class _Shared:
    """A page that is made once for all who ask at the same time.

    So servers get one question at a time, and a server that hangs holds up two questions at most.
    """

    def __init__(
        self, make: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = -math.inf
        self._text = ""

    def __call__(self) -> str:
        arrived = self._clock()
        with self._lock:
            if self._begun <= arrived:
                self._begun = self._clock()
                self._text = self._make()
            return self._text

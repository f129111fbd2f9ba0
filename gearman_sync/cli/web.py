"""A read-only HTTP server for metrics and probes.

Its clients can't exhaust it. A connection carries one request. It is closed when it has taken too
long, and the number of connections is limited.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, TypeAlias

#: Makes the text of a page.
Page: TypeAlias = Callable[[], str]

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_MAX_CONNECTIONS: Final = 64


class WebServer(socketserver.ThreadingTCPServer):
    """A server of pages. `serve_forever` runs it.

    Args:
        host: The address to listen at.
        port: The port; 0 means any free port.
        pages: The pages by path. A thread of its own makes each page.
        timeout: Seconds after which a connection is closed.

    Raises:
        OSError: The server can't listen at this address.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, host: str, port: int, pages: dict[str, Page], timeout: float) -> None:
        self.address_family: int = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages = pages
        self._seconds = timeout
        # The open connections, and when to close each. Only the serving thread adds to it.
        self._deadlines: dict[socket.socket, float] = {}
        self._is_closed = False
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Return False for a connection beyond the limit. It is then closed."""
        if len(self._deadlines) >= _MAX_CONNECTIONS:
            return False
        self._deadlines[request] = time.monotonic() + self._seconds
        return True

    def service_actions(self) -> None:
        """Disconnect clients that have taken too long."""
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if deadline <= now:
                with contextlib.suppress(OSError):  # The handler might have closed it.
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening. Threads that still make a page continue."""
        self._is_closed = True
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error of a page.

        It is no error if the client has disconnected, or if the program ends meanwhile.
        """
        if not self._is_closed and not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    server_version = "gearmanctl"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        status = HTTPStatus.NOT_FOUND if page is None else HTTPStatus.OK
        body = (page() if page else f"pages: {' '.join(self.server.pages)}\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", _TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing. Clients send a request every few seconds."""

"""The server of gear: the argument is HOST:PORT. A signal ends it."""

from __future__ import annotations

import sys
import threading

import gear


def main(address: str) -> None:
    host, port = address.rsplit(":", 1)
    server = gear.Server(int(port), host=host)
    server.log.disabled = True
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

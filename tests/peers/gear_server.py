"""The server of gear: the arguments are host and port."""

from __future__ import annotations

import sys
import threading

import gear


def main(host: str, port: str) -> None:
    server = gear.Server(int(port), host=host)
    server.log.disabled = True
    # Until it is killed.
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

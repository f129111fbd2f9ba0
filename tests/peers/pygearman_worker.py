"""A worker of pygearman: the arguments are host, port and the prefix of its tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gearman

from tests.peers.functions import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable


def make_callback(function: Callable[[bytes], bytes]) -> Callable[[Any, Any], bytes]:
    return lambda worker, job: function(job.data)


def main(host: str, port: str, prefix: str) -> None:
    worker = gearman.GearmanWorker([(host, int(port))])
    for name, function in FUNCTIONS.items():
        # pygearman looks tasks up by their encoded names.
        worker.register_task((prefix + name).encode(), make_callback(function))
    worker.work()


if __name__ == "__main__":
    main(*sys.argv[1:])

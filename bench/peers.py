"""The programs and libraries to compare with: their availability, version and installation."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
import subprocess
from typing import NamedTuple

from .processes import GEARMAND, compiled


class Peer(NamedTuple):
    """A program or library to compare with.

    Attributes:
        module: The Python module of a library, or "".
        remedy: The way to install it.
    """

    module: str
    remedy: str


PEERS = {
    "gearmand": Peer("", "apt-get install gearman-job-server"),
    "libgearman": Peer("", "apt-get install gcc libgearman-dev"),
    "valgrind": Peer("", "apt-get install valgrind"),
    "pygearman": Peer("gearman", "pip install --group bench"),
    "gear": Peer("gear", "pip install --group bench"),
    "aiogear": Peer("aiogear", "pip install --group bench"),
    "anyio": Peer("anyio", "pip install --group bench"),
    "trio": Peer("trio", "pip install --group bench"),
    "Redis": Peer("", "apt-get install redis-server"),
    "celery": Peer("celery", "pip install --group queues"),
    "rq": Peer("rq", "pip install --group queues"),
}


@functools.cache
def has(name: str) -> bool:
    """Return True if a peer is installed."""
    if name == "gearmand":
        return GEARMAND is not None
    if name == "libgearman":
        return compiled("client") is not None
    if name == "valgrind":
        return shutil.which("valgrind") is not None
    if name == "Redis":
        return shutil.which("redis-server") is not None
    return importlib.util.find_spec(PEERS[name].module) is not None


def missing() -> dict[str, str]:
    """Return the missing peers, each with the way to install it."""
    return {name: peer.remedy for name, peer in PEERS.items() if not has(name)}


def versions() -> dict[str, str]:
    """Return the version of each installed peer."""
    return {name: version for name in PEERS if has(name) and (version := _version(name))}


def _version(name: str) -> str:
    if PEERS[name].module:
        return importlib.metadata.version(name)
    command = {
        "gearmand": [str(GEARMAND), "--version"],
        "libgearman": [str(compiled("client")), "--version"],
        "valgrind": ["valgrind", "--version"],
        "Redis": ["redis-server", "--version"],
    }[name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if name == "Redis":
        return output.split("v=")[1].split()[0]
    return output.split()[1] if name == "gearmand" else output.strip().removeprefix("valgrind-")


def loops() -> list[str]:
    """Return the event loops that `gearman_anyio` can be measured on."""
    if not has("anyio"):
        return []
    return ["asyncio", "trio"] if has("trio") else ["asyncio"]

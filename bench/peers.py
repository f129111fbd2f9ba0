"""What the library is compared with: what of it there is, in which version, or how to get it."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
import subprocess
from typing import NamedTuple

from .processes import GEARMAND, compiled


class Peer(NamedTuple):
    """A program or library.

    Attributes:
        module: The module of a library of Python, or nothing.
        remedy: How to get it.
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
}


@functools.cache
def has(name: str) -> bool:
    """Whether a peer is installed."""
    if name == "gearmand":
        return GEARMAND is not None
    if name == "libgearman":
        return compiled("client") is not None
    if name == "valgrind":
        return shutil.which("valgrind") is not None
    return importlib.util.find_spec(PEERS[name].module) is not None


def missing() -> dict[str, str]:
    """What is not installed, and how to get it."""
    return {name: peer.remedy for name, peer in PEERS.items() if not has(name)}


def versions() -> dict[str, str]:
    """The version of each that is installed."""
    return {name: version for name in PEERS if has(name) and (version := _version(name))}


def _version(name: str) -> str:
    if PEERS[name].module:
        return importlib.metadata.version(name)
    command = {
        "gearmand": [str(GEARMAND), "--version"],
        "libgearman": [str(compiled("client")), "--version"],
        "valgrind": ["valgrind", "--version"],
    }[name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return output.split()[1] if name == "gearmand" else output.strip().removeprefix("valgrind-")


def loops() -> list[str]:
    """The event loops that `gearman_anyio` can be measured on."""
    if not has("anyio"):
        return []
    return ["asyncio", "trio"] if has("trio") else ["asyncio"]

"""The hardware and the software of a measurement."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import gearman_proto

from . import peers


def facts() -> dict[str, str]:
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "system": _system(),
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "gearman-sansio": gearman_proto.__version__,
        **peers.versions(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release().partition('-')[0]}"

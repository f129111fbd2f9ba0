"""The jobs' data, from which a reader can tell the job and detect changes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

#: The jobs' function.
TASK: Final = "chaos"

#: The outcome of a job: a result, a failure, or a result after some data and progress.
KINDS: Final = ("ok", "fail", "parts")


def seal(text: str) -> bytes:
    """Append a checksum to a text."""
    data = text.encode()
    return data + b"#%08x" % zlib.crc32(data)


def unseal(data: bytes) -> str | None:
    """Return the text of `seal`, or None if a byte was changed, lost or added."""
    text, mark, checksum = data.rpartition(b"#")
    return text.decode() if mark and checksum == b"%08x" % zlib.crc32(text) else None


@dataclass(frozen=True)
class Job:
    """The description of a job, contained in its data."""

    number: int
    kind: str
    #: Milliseconds that the worker needs.
    takes: int
    #: Additional bytes of the data.
    padding: int = 0
    #: Additional bytes of the result, or of all its parts together.
    grows: int = 0

    def pack(self) -> bytes:
        """Return the job's data."""
        said = f"{self.number} {self.kind} {self.takes} {self.padding} {self.grows}"
        return seal(f"{said} {'x' * self.padding}")

    @staticmethod
    def unpack(data: bytes) -> Job | None:
        """Parse a job's data. Return None if it was changed."""
        text = unseal(data)
        if text is None:
            return None
        number, kind, takes, padding, grows, _ = text.split(" ", 5)
        return Job(int(number), kind, int(takes), int(padding), int(grows))

    @property
    def result(self) -> bytes:
        """Return the worker's result."""
        grows = 0 if self.kind == "parts" else self.grows
        return seal(f"done {self.number} {'x' * grows}")

    @property
    def parts(self) -> list[bytes]:
        """Return the data that the worker sends before the result."""
        return [seal(f"part {self.number} {index} {'x' * (self.grows // 3)}") for index in range(3)]

"""What jobs carry, such that whoever reads it knows whose it is, and whether it is whole."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

#: The jobs' function.
TASK: Final = "chaos"

#: What a worker makes of a job: a result, a failure, or a result behind some data and progress.
KINDS: Final = ("ok", "fail", "parts")


def seal(text: str) -> bytes:
    """Put a checksum behind a text."""
    data = text.encode()
    return data + b"#%08x" % zlib.crc32(data)


def unseal(data: bytes) -> str | None:
    """The text of `seal`, or None if a byte of it was changed, lost or added."""
    text, mark, checksum = data.rpartition(b"#")
    return text.decode() if mark and checksum == b"%08x" % zlib.crc32(text) else None


@dataclass(frozen=True)
class Job:
    """What a job says of itself."""

    number: int
    kind: str
    #: Milliseconds that its worker takes for it.
    takes: int
    #: Bytes that it is longer than it needs to be.
    padding: int = 0
    #: Bytes that its result, or all its parts together, are longer than they need to be.
    grows: int = 0

    def pack(self) -> bytes:
        """The job's data."""
        said = f"{self.number} {self.kind} {self.takes} {self.padding} {self.grows}"
        return seal(f"{said} {'x' * self.padding}")

    @staticmethod
    def unpack(data: bytes) -> Job | None:
        """Read it; None if it is not what was sent."""
        text = unseal(data)
        if text is None:
            return None
        number, kind, takes, padding, grows, _ = text.split(" ", 5)
        return Job(int(number), kind, int(takes), int(padding), int(grows))

    @property
    def result(self) -> bytes:
        """What its worker returns."""
        grows = 0 if self.kind == "parts" else self.grows
        return seal(f"done {self.number} {'x' * grows}")

    @property
    def parts(self) -> list[bytes]:
        """The data that its worker sends before the end."""
        return [seal(f"part {self.number} {index} {'x' * (self.grows // 3)}") for index in range(3)]

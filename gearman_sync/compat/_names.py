"""The names of tasks and jobs, for programs in which they are str and for those with bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.names import to_wire

if TYPE_CHECKING:
    from typing import Self


class Name(str):
    """A name: a str that also has what programs for gearman3 do with bytes.

    It can be decoded, and is equal to the bytes that it is on the wire.
    """

    __slots__ = ()

    @classmethod
    def of(cls, name: str | None) -> Self | None:
        """Return `name` as one of these; None if it is None."""
        return None if name is None else cls(name)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return it as a plain str, as `bytes.decode` would."""
        return to_wire(self).decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        return to_wire(self) == other if isinstance(other, bytes) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    # CPython gives the same hash to bytes of ASCII, so that either finds the other in a dict.
    __hash__ = str.__hash__

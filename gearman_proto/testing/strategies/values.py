"""Names, payloads, single packets, and the chunks of received bytes."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from gearman_proto import constants
from gearman_proto.checks import check_count, check_type
from gearman_proto.wire.packets import (
    EVENT_CLASSES,
    HEADER_SIZE,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    PacketEvent,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hypothesis.strategies import SearchStrategy

# Valid but unusual names. They contain separators or the end of a list, non-ASCII characters, or
# invalid UTF-8.
_ODD_NAMES: Final = (b"two words", b"a\tb", b"a\nb", b".", "gr\xfcn".encode(), b"\xff")
# Payloads that a parser might mistake for the beginning or the end of a packet or a list.
_ODD_PAYLOADS: Final = (
    *(b"\0", b"\n", b".\n", b"\r\n.\r\n", b"\xff", b"status\n", MAGIC_REQUEST),
    MAGIC_RESPONSE + b"\0\0\0\x06\0\0\0\0",
    bytes(range(256)),
)
# Maximum size of an ordinary name, in bytes.
_USUAL: Final = 12


def without(data: bytes, unwanted: bytes) -> bytes:
    """Return `data` with each of the `unwanted` bytes replaced by an ``a``."""
    return data.translate(bytes(97 if byte in unwanted else byte for byte in range(256)))


def names(plain: tuple[bytes, ...], max_size: int) -> SearchStrategy[bytes]:
    """Names of up to `max_size` bytes, without NULs; the simplest is the first of `plain`."""
    return st.one_of(
        st.sampled_from(plain),
        st.sampled_from((*_ODD_NAMES, b"n" * max_size)),
        st.binary(max_size=min(_USUAL, max_size)).map(lambda name: without(name, b"\0")),
    )


def function_names() -> SearchStrategy[bytes]:
    """Names of functions that servers accept: up to 7986 bytes without NULs, possibly empty.

    They are bytes, and can contain blanks, tabs, line feeds and invalid UTF-8. The simplest is
    ``b"f"``.
    """
    return names((b"f", b"g", b""), constants.MAX_FUNCTION_SIZE)


def uniques() -> SearchStrategy[bytes]:
    """Uniques that servers accept: up to 63 bytes without NULs.

    The simplest is ``b""``, which means no unique. The choice is small, so that jobs share uniques.
    It includes ``b"-"``, which is special to gearmand.
    """
    return names((b"", b"u", b"v", b"-"), constants.MAX_UNIQUE_SIZE)


def handles() -> SearchStrategy[bytes]:
    """Handles of jobs of up to 63 bytes, mostly in gearmand's form. The simplest is ``H:h:1``."""
    given = st.builds(
        lambda host, number: b"H:%b:%d" % (host, number),
        st.sampled_from([b"h", b"host", b"db-1.example.org"]),
        st.integers(1, 2**31),
    )
    return given | names((b"H:h:1",), constants.MAX_HANDLE_SIZE)


def payloads(max_size: int = 1000) -> SearchStrategy[bytes]:
    """Payloads of jobs: any bytes.

    They include bytes that a parser might mistake for the beginning or the end of a packet or a
    list, and runs of one byte up to the maximum size. The simplest is ``b""``.

    Args:
        max_size: Maximum size in bytes. A large value is fine, as runs are cheap to draw.

    Raises:
        TypeError, ValueError: `max_size` is not an integer from 0 on.
    """
    check_count("max_size", max_size, 0)
    odd = [payload for payload in _ODD_PAYLOADS if len(payload) <= max_size]
    return st.one_of(
        st.binary(max_size=max_size),
        st.sampled_from([b"", *odd]),
        st.integers(0, max_size).map(lambda size: b"x" * size),
    )


def numbers(largest: int) -> SearchStrategy[bytes]:
    """Numbers from 0 to `largest`, in decimal."""
    return st.integers(0, largest).map(lambda number: b"%d" % number)


# Error codes that can reply to any request; see `Connection` for the others.
ERROR_CODES: Final = (b"UNKNOWN_ERROR", b"SOME_CODE", b"unknown_command", b"")

_VALUES: Final[dict[str, Callable[[], SearchStrategy[bytes]]]] = {
    "function": function_names,
    "unique": uniques,
    "handle": handles,
    "data": payloads,
    "timeout": lambda: numbers(constants.MAX_CAN_DO_TIMEOUT),
    "epoch": lambda: numbers(constants.MAX_EPOCH),
    "numerator": lambda: numbers(10**constants.MAX_PROGRESS_SIZE - 1),
    "denominator": lambda: numbers(10**constants.MAX_PROGRESS_SIZE - 1),
    "known": lambda: numbers(1),
    "running": lambda: numbers(1),
    "clients": lambda: numbers(1000),
    "code": lambda: st.sampled_from(ERROR_CODES),
    "text": lambda: payloads(30),
    "option": lambda: names((b"exceptions",), constants.MAX_HANDLE_SIZE),
    "client_id": lambda: names((b"-", b"id"), constants.MAX_CLIENT_ID_SIZE),
    "reducer": lambda: names((b"", b"r"), constants.MAX_REDUCER_SIZE),
    "aggregate": lambda: names((b"",), constants.MAX_REDUCER_SIZE),
}


def events_of(kind: type[PacketEvent], role: Role) -> SearchStrategy[Any]:
    """Events of one kind that `role` can receive."""
    return _events_of(kind.packet.number, role)


@functools.cache
def _events_of(number: int, role: Role) -> SearchStrategy[Any]:
    kind = EVENT_CLASSES[number]
    # Arguments that are not in the table are calendar fields, such as minutes.
    values: list[SearchStrategy[Any]] = [
        _VALUES.get(name, lambda: numbers(59))() for name in kind.packet.args
    ]
    if kind.packet.optional:
        # Only gearmand sends an argument after the handle. Workers don't.
        values[-1] = st.none() if role is Role.SERVER else st.sampled_from([None, b""])
    return st.builds(kind, *values)


def check_role(role: Role) -> Role:
    """Return `role`, after a check of its type.

    Raises:
        TypeError: `role` is not a Role.
    """
    return check_type("role", role, Role, "a Role: the receiver's")


def packets(
    role: Role, kinds: Collection[type[PacketEvent]] | None = None
) -> SearchStrategy[PacketEvent]:
    """Single packets that `role` can receive, as events.

    Replies are drawn without their requests; `sessions` matches them. The simplest packets are
    those with the fewest arguments.

    Args:
        role: The role of the receiver.
        kinds: The event classes of `gearman_proto.events` to draw from, or None for all.

    Raises:
        TypeError: `role` is not a Role.
        ValueError: `role` receives none of `kinds`.
    """
    check_role(role)
    found = [
        kind
        for kind in EVENT_CLASSES.values()
        if kind.packet.receiver & role and (kinds is None or kind in kinds)
    ]
    if not found:
        raise ValueError(f"{role!r} receives none of these packets")
    found.sort(key=lambda kind: len(kind.packet.args))
    return st.one_of([events_of(kind, role) for kind in found])


def chunked(data: bytes) -> SearchStrategy[list[bytes]]:
    """Ways to cut `data` into chunks that are not empty.

    They include one chunk, which is the simplest case; cuts at any positions; cuts inside and near
    the headers of packets; chunks of equal size; and single bytes.

    Raises:
        TypeError: `data` is not bytes.
    """
    size = len(check_type("data", data, bytes, "bytes"))
    if size < 2:
        return st.just([data] if data else [])
    headers = [at for at in range(size) if data.startswith((MAGIC_REQUEST, MAGIC_RESPONSE), at)]
    near = {at + offset for at in headers or [0] for offset in range(HEADER_SIZE + 2)}
    inside = sorted(near & set(range(1, size))) or [1]

    def cut(places: set[int]) -> list[bytes]:
        return [data[begin:end] for begin, end in pairwise([0, *sorted(places), size])]

    return st.one_of(
        st.just([data]),
        st.sets(st.integers(1, size - 1), max_size=10).map(cut),
        st.sets(st.sampled_from(inside), max_size=10).map(cut),
        st.integers(1, size - 1).map(lambda step: cut(set(range(step, size, step)))),
        st.just(cut(set(range(1, size)))),
    )

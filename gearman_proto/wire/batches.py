"""The quick path for many submits: their packets, and the JOB_CREATED packets that answer them."""

from __future__ import annotations

import functools
import itertools
import struct
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants

from .packets import HEADER_SIZE, MAGIC_RESPONSE, NUMBER, JobCreated
from .rows import MAX_PLAIN_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .buffer import ReceiveBuffer
    from .client import ClientEnd
    from .rows import Row

_MAX_BODY_SIZE: Final = constants.MAX_BODY_SIZE
_CREATED: Final = JobCreated.packet.number
_CREATED_HEAD: Final = MAGIC_RESPONSE + NUMBER.pack(_CREATED)


def send_submits(
    end: ClientEnd,
    row: Row,
    function: bytes,
    jobs: Iterable[tuple[bytes, bytes]],
    tokens: Iterable[Any],
) -> bytes:
    """Queue many submits of one function and return their packets.

    See `Connection.send_submits`. `row` is the row of the submit's class.
    """
    row.check_args((function,))
    start, fixed, unique_limit = row.head, len(function) + 2, row.limits[1]
    name = function + b"\0"
    known, head = -1, b""
    packets: list[bytes] = []
    for unique, data in jobs:
        size = fixed + len(unique) + len(data)
        if size != known:
            if size > _MAX_BODY_SIZE:
                raise row.too_large(size)
            known, head = size, start + NUMBER.pack(size) + name
        if 0 in unique or len(unique) > unique_limit:
            row.check_args((function, unique))
        packets += head, unique, b"\0", data
    end.asked.extend([(row, None)] * (len(packets) // 4))
    end.tokens.extend(tokens)
    return b"".join(packets)


def next_created(end: ClientEnd, buffer: ReceiveBuffer) -> tuple[list[bytes], list[Any]]:
    """Remove JOB_CREATED packets of equal size from `buffer`; see `Connection.next_created`."""
    data, start = buffer.data, buffer.start
    head = data[start : start + HEADER_SIZE]
    if not head.startswith(_CREATED_HEAD):
        return [], []
    size = int.from_bytes(head[-4:])
    count = min((len(data) - start) // (HEADER_SIZE + size), len(end.asked))
    if count < 2 or size > MAX_PLAIN_SIZE:
        return [], []
    for number, (request, _) in enumerate(itertools.islice(end.asked, count)):
        if _CREATED not in request.accepts:
            count = number
            break
    packets = memoryview(data)[start : start + count * (HEADER_SIZE + size)]
    handles: list[bytes] = []
    for found, handle in _pairs(size).iter_unpack(packets):
        if found != head or 0 in handle:
            break
        handles.append(handle)
    buffer.start = start + len(handles) * (HEADER_SIZE + size)
    tokens = []
    for _ in handles:
        end.asked.popleft()
        tokens.append(end.tokens.popleft())
    return handles, tokens


@functools.lru_cache(maxsize=64)
def _pairs(size: int) -> struct.Struct:
    """Return the format of a packet with a body of `size` bytes: its header and its body."""
    return struct.Struct(f"{HEADER_SIZE}s{size}s")

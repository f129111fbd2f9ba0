"""The quick path for many submits: their packets, and the JOB_CREATED packets that answer them."""

from __future__ import annotations

import functools
import itertools
import operator
import struct
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants

from .packets import HEADER_SIZE, MAGIC_RESPONSE, NUMBER, JobCreated
from .rows import MAX_PLAIN_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .buffer import ReceiveBuffer
    from .client import ClientEnd
    from .rows import Row

_MAX_BODY_SIZE: Final = constants.MAX_BODY_SIZE
_CREATED: Final = JobCreated.packet.number
_CREATED_HEAD: Final = MAGIC_RESPONSE + NUMBER.pack(_CREATED)


class _Heads(dict[int, bytes]):
    """The first bytes of a submit, up to its function and a NUL, by the size of unique and data.

    Args:
        row: The row of the submit's class.
        function: The function of all submits.
    """

    def __init__(self, row: Row, function: bytes) -> None:
        super().__init__()
        self._row, self._name = row, function + b"\0"

    def __missing__(self, size: int) -> bytes:
        body = len(self._name) + size + 1
        if body > _MAX_BODY_SIZE:
            raise self._row.too_large(body)
        head = self[size] = self._row.head + NUMBER.pack(body) + self._name
        return head


def send_submits(
    end: ClientEnd,
    kinds: Sequence[tuple[Row, bytes]],
    uniques: Sequence[bytes],
    payloads: Sequence[bytes],
    tokens: Iterable[Any],
) -> bytes:
    """Queue many submits and return their packets.

    See `Connection.send_submits`. `kinds` has the row of a submit's class and its function: one for
    all submits, or one for each.
    """
    for row, function in (known := {*kinds}):
        row.check_args((function,))
    (row, function), count = kinds[0], len(uniques)
    lengths, limit = [*map(len, uniques)], row.limits[1]
    if max(lengths, default=0) > limit or 0 in b"".join(uniques):
        row.check_args((function, next(u for u in uniques if 0 in u or len(u) > limit)))
    sizes = map(operator.add, lengths, map(len, payloads))
    packets = [b"\0"] * (4 * count)
    # Slice assignments are much faster than a loop.
    if len(known) == 1:
        packets[::4] = map(_Heads(row, function).__getitem__, sizes)
        asked = [(row, None)] * count
    else:
        heads = {kind: _Heads(*kind) for kind in known}
        packets[::4] = [heads[kind][size] for kind, size in zip(kinds, sizes)]
        asked = [(row, None) for row, _ in kinds]
    packets[1::4] = uniques
    packets[3::4] = payloads
    data = b"".join(packets)
    end.asked.extend(asked)
    end.tokens.extend(tokens)
    return data


def next_created(end: ClientEnd, buffer: ReceiveBuffer) -> tuple[list[bytes], list[Any]]:
    """Remove JOB_CREATED packets of equal size from `buffer`; see `Connection.next_created`."""
    data, start = buffer.data, buffer.start
    head = data[start : start + HEADER_SIZE]
    if not head.startswith(_CREATED_HEAD):
        return [], []
    size = int.from_bytes(head[-4:])
    asked, next_token = end.asked, end.tokens.popleft
    count = min((len(data) - start) // (HEADER_SIZE + size), len(asked))
    if count < 2 or size > MAX_PLAIN_SIZE:
        return [], []
    entries = [*itertools.islice(asked, count)]
    if entries.count(entries[0]) < count or _CREATED not in entries[0][0].accepts:
        asking = itertools.takewhile(lambda entry: _CREATED in entry[0].accepts, entries)
        count = sum(1 for _ in asking)
    packets = memoryview(data)[start : start + count * (HEADER_SIZE + size)]
    found = [*_pairs(size).iter_unpack(packets)]
    handles = [handle for _, handle in found]
    if [*map(operator.itemgetter(0), found)].count(head) < count or 0 in b"".join(handles):
        fitting = itertools.takewhile(lambda pair: pair[0] == head and 0 not in pair[1], found)
        handles = [handle for _, handle in fitting]
    buffer.start = start + len(handles) * (HEADER_SIZE + size)
    tokens = [next_token() for _ in handles]
    for _ in handles:
        asked.popleft()
    return handles, tokens


@functools.lru_cache(maxsize=64)
def _pairs(size: int) -> struct.Struct:
    """Return the format of a packet with a body of `size` bytes: its header and its body."""
    return struct.Struct(f"{HEADER_SIZE}s{size}s")

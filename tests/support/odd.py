"""Invalid or missing values that an application might pass."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import math
from typing import Any, Final, NoReturn

from gearman_proto import GearmanJob, GearmanJobRequest, ServerAddress


class Stubborn:
    """An object that raises StubbornError on every inspection."""

    def _no(self, *args: object) -> NoReturn:
        raise StubbornError

    __bool__ = __eq__ = __hash__ = __repr__ = __str__ = __len__ = __iter__ = _no
    __getitem__ = __contains__ = __float__ = __int__ = __index__ = __lt__ = __gt__ = _no


class StubbornError(Exception):
    """The exception raised by Stubborn."""


class Name(str, enum.Enum):  # noqa: UP042 - it is another
    """A str whose `str()` differs from its value."""

    ODD = "odd"


class Text(str):
    """A str that can't be encoded."""

    __slots__ = ()

    def encode(self, *args: object, **options: object) -> NoReturn:
        raise StubbornError


class Unhashable(GearmanJobRequest):
    """A request of an application's unhashable class."""

    def __eq__(self, other: object) -> bool:
        raise StubbornError

    __hash__ = None  # type: ignore[assignment]


async def coroutine_function(worker: Any, job: Any) -> bytes:
    return b""


# Callers pass naive times.
FIRST_DAY, LAST_DAY = dt.datetime.fromordinal(1), dt.datetime.fromordinal(3652059)

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 5, 2**31, 2**64, 10**5000, -(10**5000)),
    *(0.0, -0.0, 1e-9, -1.5, 1e308, math.inf, -math.inf, math.nan, decimal.Decimal(1), 1j),
    *("", "text", "a\0b", "\ud800", "\udcff", "x" * 10000, "1", "nan", "HIGH", "::1:4730", "[::1]"),
    *(b"", b"bytes", b"\0", b"\xff", bytearray(b"array"), memoryview(b"view")),
    *([], [None], [[]], (), ("localhost",), ("localhost", 1), {}, {"host": 5}, {"task": "t"}),
    *(set(), frozenset({1}), range(3), iter(()), object(), object, Stubborn(), Ellipsis),
    *(Name.ODD, Text("text"), FIRST_DAY, LAST_DAY, dt.timedelta(1), math.sqrt),
    *(lambda: None, functools.partial(print), coroutine_function, ServerAddress("localhost", 1)),
    ServerAddress(5, None),  # type: ignore[arg-type]
    GearmanJob(None, None, "t", None, b""),
    GearmanJob(None, "H:1", "t", "u", b""),
)


def name_of(value: Any) -> str:
    """Return a test id for one of VALUES."""
    number = next(number for number, other in enumerate(VALUES) if other is value)
    return f"VALUES[{number}], a {type(value).__name__}"

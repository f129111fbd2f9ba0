"""What an event may be, said by a class, by an event, by some fields, or by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from gearman_proto.wire.packets import Event

#: How one says which events are meant: a class; an event that is equal; or a function of an event.
Wanted: TypeAlias = type[Event] | Event | Callable[[Any], object]

# Characters of an event that are shown.
_SHOWN = 200


def matcher(what: Wanted, fields: dict[str, object]) -> tuple[Callable[[Event], bool], str]:
    """Return a function that tells whether an event is meant, and what to call that.

    Raises:
        TypeError: `what` says nothing about events, or its events have no such field.
    """
    if isinstance(what, type) and issubclass(what, Event):
        kind: type[Event] = what
        names = getattr(kind, "__match_args__", ())
        unknown = fields.keys() - set(names)
        if unknown:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return (
            lambda event: (
                isinstance(event, kind)
                and all(getattr(event, name) == value for name, value in fields.items())
            ),
            f"{kind.__name__}({shown})" if fields else kind.__name__,
        )
    if fields:
        raise TypeError("fields are for a class of events")
    if isinstance(what, Event):
        return lambda event: event == what, shortened(what)
    if callable(what) and not isinstance(what, type):
        function = what
        name = getattr(what, "__name__", repr(what))
        return lambda event: bool(function(event)), f"what {name} is true for"
    raise TypeError(f"{what!r} says nothing about events")


def shortened(event: object) -> str:
    """An event as it is shown."""
    text = repr(event)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

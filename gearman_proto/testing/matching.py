"""Match events with a class, an event, some fields, or a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from gearman_proto.wire.packets import Event

#: A pattern: a class of events, an equal event, or a predicate of an event.
Wanted: TypeAlias = type[Event] | Event | Callable[[Any], object]

# Maximum number of characters to show of an event.
_SHOWN = 200


def matcher(what: Wanted, fields: dict[str, object]) -> tuple[Callable[[Event], bool], str]:
    """Return a predicate of events, and a description of the events that it accepts.

    Raises:
        TypeError: `what` is not a pattern, or its events have no such field.
    """
    if isinstance(what, type) and issubclass(what, Event):
        kind: type[Event] = what
        names = getattr(kind, "__match_args__", ())
        unknown = fields.keys() - set(names)
        if unknown:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        shown = ", ".join(f"{name}={shortened(value)}" for name, value in fields.items())
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
    """Return an event as text, cut to a maximum length."""
    text = repr(event)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

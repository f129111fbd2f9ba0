"""Classes that hold a few values and no more: what `dataclasses` makes, in a fraction of the time.

`dataclasses` compiles each method of each class, and imports `inspect`, which together was half of
the time that importing this library took. Here only `__init__` is compiled, once for all classes
that have the same fields, and the other methods are closures that go by the fields' names.

Type checkers take a record for a dataclass. The functions of `dataclasses` do not; `copy.replace`
works (since Python 3.13), and so do `copy` and `pickle`.
"""

from __future__ import annotations

import functools
from operator import attrgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

_K = TypeVar("_K", bound=type)
_R = TypeVar("_R")

_set: Final = object.__setattr__


class _Hidden(NamedTuple):
    default: Any
    compare: bool


def hidden(*, default: Any, compare: bool = True) -> Any:
    """Return what to assign to a field that `repr` does not show.

    Args:
        default: The field's default.
        compare: Whether it takes part in comparisons.
    """
    return _Hidden(default, compare)


@dataclass_transform(field_specifiers=(hidden,))
def record(*, frozen: bool = False, eq: bool = True) -> Callable[[_K], _K]:
    """Make a record of a class whose annotations are its fields. It has a slot for each of them.

    Methods that the class has itself stay. `__post_init__` is called at the end of `__init__`. What
    is derived from a record has no fields of its own.

    Args:
        frozen: Whether fields can't be assigned to once it is made. It can be hashed then.
        eq: Whether two records of the class are equal if their fields are.
    """

    def make(kind: _K) -> _K:
        names = tuple(kind.__annotations__)
        attributes = dict(vars(kind))
        for slot in ("__dict__", "__weakref__"):
            attributes.pop(slot, None)
        given = {name: attributes.pop(name) for name in names if name in attributes}
        kept_back = {name: value for name, value in given.items() if isinstance(value, _Hidden)}
        compared = [name for name in names if name not in kept_back or kept_back[name].compare]
        methods = {
            "__init__": _init(kind, names, given, frozen=frozen),
            "__repr__": _repr(tuple(name for name in names if name not in kept_back)),
            "__replace__": replaced,
            **(_comparing(tuple(compared), frozen=frozen) if eq else {}),
            **(_freezing(names) if frozen else {}),
        }
        # A class has to be made anew to have slots.
        slotted: Any = type(kind)(
            kind.__name__,
            kind.__bases__,
            {
                **methods,
                **attributes,
                "__qualname__": kind.__qualname__,
                "__match_args__": names,
                "__slots__": names,
            },
        )
        return slotted  # type: ignore[no-any-return]

    return make


def replaced(record: _R, /, **changes: Any) -> _R:
    """Return a record like this one, with some fields changed."""
    kind: Any = type(record)
    made: _R = kind(**{name: getattr(record, name) for name in kind.__match_args__} | changes)
    return made


def values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the attributes of these names of what it is called with."""
    if not names:
        return lambda _record: ()
    if len(names) == 1:
        # attrgetter of one name returns no tuple.
        single = attrgetter(names[0])
        return lambda record: (single(record),)
    return attrgetter(*names)


def _init(kind: type, names: tuple[str, ...], given: dict[str, Any], *, frozen: bool) -> Any:
    defaults = tuple(v.default if isinstance(v, _Hidden) else v for v in given.values())
    if names[len(names) - len(given) :] != tuple(given):
        raise TypeError(f"{kind.__name__}: a field without a default follows one with a default")
    code = _init_code(names, frozen, hasattr(kind, "__post_init__"))
    init = FunctionType(code, globals(), "__init__", defaults)
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    init.__annotations__ = {**kind.__annotations__, "return": None}
    return init


@functools.cache
def _init_code(names: tuple[str, ...], frozen: bool, has_more: bool) -> CodeType:
    assignment = "_set(self, {0!r}, {0})" if frozen else "self.{0} = {0}"
    body = [assignment.format(name) for name in names]
    body.append("self.__post_init__()" if has_more else "pass")
    made: dict[str, Any] = {}
    exec(f"def __init__({', '.join(('self', *names))}):\n " + "\n ".join(body), made)  # noqa: S102
    code: CodeType = made["__init__"].__code__
    return code


def _repr(names: tuple[str, ...]) -> Any:
    def __repr__(self: Any) -> str:  # noqa: N807
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({fields})"

    return __repr__


def _comparing(names: tuple[str, ...], *, frozen: bool) -> dict[str, Any]:
    values = values_of(names)

    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(values(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _freezing(names: tuple[str, ...]) -> dict[str, Any]:
    values = values_of(names)

    def refuse(self: Any, name: str, *_: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} does not change: not its {name!r} either")

    def __reduce__(self: Any) -> Any:  # noqa: N807
        return type(self), values(self)

    return {"__setattr__": refuse, "__delattr__": refuse, "__reduce__": __reduce__}

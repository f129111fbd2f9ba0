"""Records behave like classes made by `dataclasses`, which builds them differently."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
from typing import Any, Final

import pytest

from gearman_proto.records import hidden, record, replaced


@record()
class Empty:
    """A record without fields."""


@record()
class Pair:
    """Two fields, one with a default."""

    left: int
    right: Any = None


@record()
class Told:
    """A record with a normal field and one that repr and comparison ignore."""

    name: str
    token: Any = hidden(default=None, compare=False)


@record(frozen=True)
class Fixed:
    """A frozen record with a field that repr omits."""

    name: str
    secret: Any = hidden(default=0)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@record(frozen=True, eq=False)
class Row:
    """A record that is equal only to itself."""

    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Derived(Pair):
    """A subclass without fields of its own."""

    __slots__ = ()


@dataclasses.dataclass(slots=True)
class Model:
    """The dataclass that corresponds to Pair."""

    left: int
    right: Any = None


ALL: Final = (Empty(), Pair(1, [2]), Told("a", 1), Fixed("a", 1), Row("a"), Derived(3, 4))


def test_fields_are_those_of_a_dataclass() -> None:
    kind: Any = Pair
    assert inspect.signature(kind) == inspect.signature(Model)
    assert kind.__match_args__ == Model.__match_args__
    assert (kind.__module__, kind.__doc__) == (__name__, "Two fields, one with a default.")
    match Pair(right=2, left=1):
        case Pair(left, right):
            assert (left, right) == (1, 2)
    assert (Pair(1).right, Told("a").token) == (None, None)
    for arguments in ((), (1, 2, 3)):
        with pytest.raises(TypeError, match=r"Pair\.__init__\(\) (missing|takes)"):
            Pair(*arguments)


def test_repr_shows_visible_fields() -> None:
    assert [repr(each) for each in ALL] == [
        "Empty()",
        "Pair(left=1, right=[2])",
        "Told(name='a')",
        "Fixed(name='a')",
        "<a>",
        "Derived(left=3, right=4)",
    ]


def test_records_of_one_class_with_equal_fields_are_equal() -> None:
    assert Empty() == Empty()
    assert Pair(1) == Pair(1, None) != Pair(1, 1)
    assert Told("a", 1) == Told("a", 2) != Told("b", 1)
    assert Fixed("a", 1) == Fixed("a", 1) != Fixed("a", 2)
    assert Derived(1) == Derived(1)
    assert Derived(1) != Pair(1)
    assert Pair(1) != (1, None)  # type: ignore[comparison-overlap]
    assert Row("a") != Row("a")


def test_only_frozen_records_are_hashable() -> None:
    assert len({Fixed("a", 1), Fixed("a", 1), Fixed("a", 2)}) == 2
    assert len({Row("a"), Row("a")}) == 2
    for changing in (Pair(1), Derived(1), Empty()):
        with pytest.raises(TypeError, match="unhashable"):
            hash(changing)


def test_frozen_record_refuses_assignment() -> None:
    fixed: Any = Fixed("a")
    with pytest.raises(AttributeError, match="a Fixed does not change: not its 'name'"):
        fixed.name = 1
    with pytest.raises(AttributeError, match="does not change"):
        del fixed.name


@pytest.mark.parametrize("each", ALL, ids=lambda each: type(each).__name__)
def test_record_has_only_its_fields_and_so_has_its_copy(each: Any) -> None:
    assert not hasattr(each, "__dict__")
    with pytest.raises(AttributeError):
        each.other = 1
    names = type(each).__match_args__
    for other in (copy.copy(each), copy.deepcopy(each), pickle.loads(pickle.dumps(each))):
        assert type(other) is type(each)
        assert other is not each
        assert [getattr(other, name) for name in names] == [getattr(each, name) for name in names]


def test_replaced_returns_a_changed_copy() -> None:
    told = replaced(Told("a", 1), name="b")
    assert (told.name, told.token) == ("b", 1)
    assert replaced(Derived(1), right=2) == Derived(1, 2)
    if sys.version_info >= (3, 13):
        assert copy.replace(Pair(1), left=2) == Pair(2)
    with pytest.raises(ValueError, match="no name"):
        replaced(Fixed("a"), name="")
    with pytest.raises(TypeError):
        replaced(Pair(1), other=2)


def test_field_without_default_after_default_raises() -> None:
    with pytest.raises(TypeError, match="Wrong: a field without a default follows one with"):

        @record()
        class Wrong:
            first: int = 1
            second: int  # type: ignore[misc]

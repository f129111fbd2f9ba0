"""The attributes, texts and copies of errors."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import errors
from gearman_proto.errors import GearmanError, ServerError, SubmitError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_server_error_has_code_and_text() -> None:
    error = ServerError("QUEUE_ERROR", "it is full")
    assert (error.code, error.text) == ("QUEUE_ERROR", "it is full")
    assert str(error) == "QUEUE_ERROR: it is full"
    assert str(ServerError("ERR")) == "ERR"


def _by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, _by_pickle])
@pytest.mark.parametrize("name", errors.__all__)
def test_copy_of_each_error_has_its_attributes(name: str, copied: Callable[[Any], Any]) -> None:
    kind = getattr(errors, name)
    error: GearmanError
    if issubclass(kind, ServerError):
        error = kind("CODE", "text")
    elif issubclass(kind, SubmitError):
        error = kind("message", ["a request"])
    else:
        error = kind("message")
    error.add_note("a note")
    other = copied(error)
    assert type(other) is kind
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
    assert other.__notes__ == ["a note"]

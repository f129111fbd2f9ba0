"""Both adapters have the surface's methods, parameters and documentation."""

from __future__ import annotations

import inspect
import pydoc
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

import gearman_anyio
import gearman_sync
from gearman_proto import surface

if TYPE_CHECKING:
    from types import ModuleType

PAIRS: Final = {
    "GearmanClient": surface.Client,
    "GearmanWorker": surface.Worker,
    "GearmanAdminClient": surface.AdminClient,
    "JobServer": surface.JobServer,
}
ADAPTERS: Final = (gearman_sync, gearman_anyio)

# Parameters and methods that only one adapter has.
MORE_PARAMETERS: Final = {
    (gearman_anyio, "GearmanClient", "__init__"): {"connect"},
    (gearman_anyio, "GearmanWorker", "__init__"): {"connect"},
    (gearman_anyio, "GearmanAdminClient", "__init__"): {"connect"},
    (gearman_sync, "JobServer", "wait"): {"timeout"},
}
MORE_METHODS: Final = {
    (gearman_sync, "JobServer"): {"start"},
    (gearman_anyio, "JobServer"): {"handle", "connect"},
}
# Parameters whose type differs, because only one adapter accepts async callbacks.
OTHER_TYPES: Final = {(gearman_anyio, "register_task", "callback")}
# Types that each adapter replaces by its own.
PARAMETERS_OF_TYPES: Final = {
    "ServerT": "Server",
    "ContextT": "ssl.SSLContext",
}
each_class = pytest.mark.parametrize("name", PAIRS)
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda module: module.__name__)


def public(kind: type) -> set[str]:
    """Return the public methods and properties of a class."""
    return {
        name
        for name in dir(kind)
        if not name.startswith("_") and not isinstance(getattr(kind, name), type)
    }


def signature_of(kind: type, name: str) -> inspect.Signature:
    member: Any = inspect.getattr_static(kind, name)
    return inspect.signature(getattr(member, "fget", member))


def exact(annotation: object) -> str:
    """Return an annotation of the surface with the adapter's own types."""
    text = str(annotation)
    for parameter, kind in PARAMETERS_OF_TYPES.items():
        text = re.sub(rf"\b{parameter}\b", kind, text)
    return text


def streamed(annotation: object, adapter: ModuleType) -> str:
    """Return an annotation of the surface with the adapter's type of streams."""
    own = r"Iterable[\1]" if adapter is gearman_sync else r"Iterable[\1] | AsyncIterable[\1]"
    return re.sub(r"^Streamed\[(.*)\]$", own, exact(annotation))


def returned(annotation: object, adapter: ModuleType) -> str:
    """Return the adapter's return type of a waiting method."""
    text = re.sub(r"^Waited\[(.*)\]$", r"\1", exact(annotation))
    if adapter is gearman_sync:
        text = re.sub(r"^Generated\[(.*)\]$", r"Generator[\1, None, None]", text)
        return re.sub(r"^Iterated\[", "Iterator[", text)
    text = re.sub(r"^Generated\[(.*)\]$", r"AsyncGenerator[\1, None]", text)
    return re.sub(r"^Iterated\[", "AsyncIterator[", text)


@each_adapter
@each_class
def test_adapter_has_the_methods_of_the_surface(adapter: ModuleType, name: str) -> None:
    own, kind = PAIRS[name], getattr(adapter, name)
    assert issubclass(kind, own)
    assert not inspect.isabstract(kind)
    assert public(kind) == public(own) | MORE_METHODS.get((adapter, name), set())


@each_adapter
@each_class
def test_adapter_has_the_parameters_of_the_surface(adapter: ModuleType, name: str) -> None:
    own, kind = PAIRS[name], getattr(adapter, name)
    for method in ["__init__", *public(own)]:
        if not callable(getattr(own, method)) and not isinstance(getattr(own, method), property):
            continue  # Skip plain attributes.
        expected, actual = signature_of(own, method), signature_of(kind, method)
        more = MORE_PARAMETERS.get((adapter, name, method), set())
        assert more <= set(actual.parameters), method
        names = [each for each in actual.parameters if each not in more]
        assert names == list(expected.parameters), method
        for parameter in expected.parameters.values():
            there = actual.parameters[parameter.name]
            assert (there.kind, there.default) == (parameter.kind, parameter.default), method
            if (adapter, method, parameter.name) not in OTHER_TYPES:
                assert exact(there.annotation) == streamed(parameter.annotation, adapter), method
        assert all(actual.parameters[each].default is not inspect.Parameter.empty for each in more)
        if method == "wait":  # Only the return types differ here.
            continue
        inherited = getattr(kind, method) is getattr(own, method)
        result = exact(actual.return_annotation)
        assert inherited or result == returned(expected.return_annotation, adapter), method


@each_class
def test_waiting_methods_are_async_in_gearman_anyio_only(name: str) -> None:
    """Make the surface's waiting methods async in gearman_anyio, and none in gearman_sync."""
    own = PAIRS[name]
    for method in public(own):
        if not inspect.isfunction(inspect.getattr_static(own, method)):
            continue
        waits = str(signature_of(own, method).return_annotation).startswith("Waited[")
        is_async = inspect.iscoroutinefunction(getattr(getattr(gearman_anyio, name), method))
        # These hooks are called for every job, and are plain functions unless overridden.
        assert is_async == (waits and method not in ("after_job", "after_poll")), method
        assert not inspect.iscoroutinefunction(getattr(getattr(gearman_sync, name), method))


@each_adapter
@each_class
def test_public_methods_are_documented(adapter: ModuleType, name: str) -> None:
    kind: Any = getattr(adapter, name)
    assert kind.__doc__
    assert "Args:" in inspect.getdoc(kind.__init__)  # type: ignore[operator] # or None: it fails
    own = PAIRS[name]
    for method in public(kind) - {"data_encoder"}:
        documentation = inspect.getdoc(getattr(kind, method))
        assert documentation, method
        if hasattr(own, method):
            assert documentation == inspect.getdoc(getattr(own, method)), method
        assert documentation.splitlines()[0] in pydoc.plain(pydoc.render_doc(kind)), method

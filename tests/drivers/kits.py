"""The drivers of both adapters and of the examples, as DriverTests use them."""

from __future__ import annotations

import contextlib
import importlib
import selectors
from typing import TYPE_CHECKING, Any

import anyio
from anyio.from_thread import start_blocking_portal

import gearman_anyio._driver
import gearman_sync._driver
from gearman_anyio._opening import make_opener
from gearman_proto import ClientEngine

if TYPE_CHECKING:
    from collections.abc import Callable

# A script that belongs to no package.
own_loop: Any = importlib.import_module("examples.own_loop")


def nothing() -> None: ...


class Blocking:
    """The driver of gearman_sync."""

    def __init__(self, make_engine: Callable[[], Any]) -> None:
        self.driver = gearman_sync._driver.Driver(make_engine)

    def call(self, method: str, *args: Any, **options: Any) -> None:
        self.driver.run(getattr(ClientEngine, method), *args, **options)

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        self.driver.during(nothing_more, getattr(ClientEngine, method), *args, **options)

    def close(self) -> None:
        self.driver.close()


def nothing_more(call: object) -> None:
    """Leave a call that was begun."""


class Async:
    """The driver of gearman_anyio, in an event loop that runs in another thread."""

    def __init__(self, make_engine: Callable[[], Any], backend: str) -> None:
        self.stack = contextlib.ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal(backend))
        self.driver = gearman_anyio._driver.Driver(make_engine, make_opener((), None))
        self.stack.enter_context(self.portal.wrap_async_context_manager(self.driver))

    def call(self, method: str, *args: Any, **options: Any) -> None:
        async def run() -> None:
            await self.driver.run(getattr(ClientEngine, method), *args, **options)

        self.portal.call(run)

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        async def run() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await self.driver.run(getattr(ClientEngine, method), *args, **options)

        self.portal.call(run)

    def close(self) -> None:
        self.portal.call(self.driver.close)
        self.stack.close()


class OwnLoop:
    """The adapter of examples/own_loop.py."""

    def __init__(self, make_engine: Callable[[], Any]) -> None:
        self.selector = selectors.DefaultSelector()
        self.adapter = self.make_adapter(make_engine)

    def make_adapter(self, make_engine: Callable[[], Any]) -> Any:
        return own_loop.Adapter(make_engine, self.selector)

    def begin(self, method: str, *args: Any, **options: Any) -> Any:
        call = getattr(self.adapter.engine, method)
        return call(own_loop.clock(), own_loop.wake, *args, **options)

    def release(self, wait: Any) -> None:
        self.adapter.tell(self.adapter.engine.release, wait)
        self.adapter.pump()

    def call(self, method: str, *args: Any, **options: Any) -> None:
        wait = self.begin(method, *args, **options)
        try:
            own_loop.run_until_ready(self.adapter, wait)
        finally:
            self.release(wait)
        wait.raise_error()

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        wait = self.begin(method, *args, **options)
        self.adapter.pump()
        self.release(wait)

    def close(self) -> None:
        self.adapter.tell(self.adapter.engine.close)
        self.adapter.pump()
        self.selector.close()


class Twisted:
    """The adapter of examples/twisted_client.py, in a reactor of its own."""

    def __init__(self, make_engine: Callable[[], Any]) -> None:
        from twisted.internet.selectreactor import SelectReactor

        example: Any = importlib.import_module("examples.twisted_client")
        self.reactor: Any = SelectReactor()
        self.reactor.startRunning(installSignalHandlers=False)
        self.adapter = example.Adapter(self.reactor, make_engine)

    def run_until(self, is_done: Callable[[], object]) -> None:
        while not is_done():
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0 if is_done() else self.reactor.timeout())

    def call(self, method: str, *args: Any, **options: Any) -> None:
        results: list[Any] = []
        done = self.adapter.run(getattr(self.adapter.engine, method), *args, **options)
        done.addBoth(results.append)
        self.run_until(lambda: results)
        if results[0] is not None:
            results[0].raiseException()

    def cancel(self, method: str, *args: Any, **options: Any) -> None:
        done = self.adapter.run(getattr(self.adapter.engine, method), *args, **options)
        done.addErrback(lambda _failure: None)
        done.cancel()

    def close(self) -> None:
        self.adapter.close()
        self.run_until(lambda: len(self.reactor.getReaders()) <= len(self.reactor._internalReaders))
        self.reactor.fireSystemEvent("shutdown")
        self.reactor.disconnectAll()

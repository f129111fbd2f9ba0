"""Handlers for the packets that a client receives.

Each packet type has one handler, which updates the requests concerned. A handler needs only the
packet and its link.
"""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any

from gearman_proto.constants import JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN
from gearman_proto.engines.connecting import server_error
from gearman_proto.errors import GearmanError, ServerError
from gearman_proto.jobs import tracking
from gearman_proto.jobs.batch import Columns
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.updates import MAX_UNREAD_UPDATES, UPDATE_COST
from gearman_proto.names import to_text
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    EchoRes,
    Error,
    JobCreated,
    OptionRes,
    StatusRes,
    StatusResUnique,
    Unanswered,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
    number,
)

from .foreground import Submit
from .link import requests_of
from .queries import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.jobs.updates import JobStatus, Updates

    from .link import ClientLink


class ReplyHandler:
    """The handlers for all packets from servers.

    Args:
        wall_clock: Function that returns the seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._handlers: dict[Any, Callable[[ClientLink, Any], None]] = {
            JobCreated: self._on_job_created,
            WorkComplete: self._on_work_complete,
            WorkFail: self._on_work_fail,
            WorkException: self._on_work_exception,
            WorkData: self._on_work_data,
            WorkWarning: self._on_work_warning,
            WorkStatus: self._on_work_status,
            StatusRes: self._on_status_res,
            StatusResUnique: self._on_status_res,
            OptionRes: self._on_aside,
            EchoRes: self._on_aside,
            Error: self._on_error,
            Unanswered: self._on_unanswered,
        }

    def take(self, link: ClientLink) -> None:
        """Process the data received on `link`.

        Raises:
            RemoteProtocolError: The data is malformed. All events before the error were processed.
        """
        handlers, connection = self._handlers, link.connection
        event = connection.next_event()
        if event is NEED_DATA:
            return
        link.server.answered()
        link.heartbeat.understood = link.heartbeat.heard
        handlers[type(event)](link, event)
        if connection.is_drained():
            return  # The answer to a single job, for example.
        while event is not NEED_DATA:
            if type(event) is JobCreated:
                handles, items = connection.next_created()
                if handles:
                    self._on_many_created(link, handles, items)
            event = connection.next_event()
            if event is not NEED_DATA:
                handlers[type(event)](link, event)

    # Replies to the client's packets.

    def _on_aside(self, link: ClientLink, event: OptionRes | EchoRes) -> None:
        """Do nothing: `take` has already recorded that the server answers."""

    def _on_job_created(self, link: ClientLink, event: JobCreated) -> None:
        if link.server.failures:
            link.server.served()
        item = event.answers
        if isinstance(item, GearmanJobRequest) and item.background:
            item.handle = to_text(event.handle)
            tracking.finish_background((item,))
        else:
            self._on_many_created(link, [event.handle], [item])

    def _on_many_created(self, link: ClientLink, handles: list[bytes], items: list[Any]) -> None:
        if link.batches and Columns in map(type, items):
            columns = items[0]
            is_alone = all(map(operator.is_, items, itertools.repeat(columns)))
            if is_alone and not columns.slices:
                link.accept(columns, handles)
                return
            items = self._unpacked(link, items)
            if Columns in map(type, items):
                # Other calls' submits are between those of the batch.
                for wire, item in zip(handles, items):
                    if type(item) is Columns:
                        link.accept(item, [wire])
                    else:
                        self._on_many_created(link, [wire], [item])
                return
        over = []
        jobs, now = link.jobs, link.heartbeat.heard
        for wire, item in zip(handles, items):
            handle = wire.decode("utf-8", "surrogateescape")
            if item.background:
                item.handle = handle
                over.append(item)
            elif isinstance(item, Submit):
                for request in item.requests:
                    job = jobs.attach(handle, request, now)
                jobs.answered(item, job)
            else:
                jobs.accept(handle, item, now)
        tracking.finish_background(over)

    @staticmethod
    def _unpacked(link: ClientLink, items: list[Any]) -> list[Any]:
        """Return `items` with the requests of the columns that the application has looked at."""
        tokens = [item for item in items if type(item) is Columns]
        requests = {
            columns: iter(link.unpack(columns, link.heartbeat.heard, tokens.count(columns)))
            for columns in dict.fromkeys(tokens)  # In order, so that tests can be repeated.
            if columns.slices
        }
        return [
            next(requests[item]) if type(item) is Columns and item in requests else item
            for item in items
        ]

    def _on_error(self, link: ClientLink, event: Error) -> None:
        item = event.answers
        error = server_error(event)
        if type(item) is Columns:
            (item,) = link.unpack(item, link.heartbeat.heard, 1)
        if isinstance(item, Submit):
            link.jobs.answered(item, None)
        for request in requests_of(item):
            tracking.finish(request, JOB_FAILED, error)
        if isinstance(item, Probe):
            item.fail(error)

    def _on_unanswered(self, link: ClientLink, event: Unanswered) -> None:
        text = f"{link.address} does not answer {event.packet.name}"
        event.answers.fail(ServerError("UNANSWERED", text))

    def _on_status_res(self, link: ClientLink, event: StatusRes | StatusResUnique) -> None:
        if isinstance(event, StatusRes) and not number(event.known):
            self._lost_job(link, event.handle)
        event.answers.answer(event, self._wall_clock())

    @staticmethod
    def _lost_job(link: ClientLink, handle: bytes) -> None:
        """Fail the requests of the job of `handle`, which the server does not know."""
        requests = link.jobs.end(handle)
        if requests:
            error = GearmanError(
                f"{link.address} has lost the job: it does not know it any more, and has sent no "
                "end of it; it may have run"
            )
            for request in requests:
                tracking.finish(request, JOB_UNKNOWN, error)

    # Events of jobs.

    def _on_work_complete(self, link: ClientLink, event: WorkComplete) -> None:
        for request in link.jobs.end(event.handle):
            request._gm_raw_result = event.data
            tracking.finish(request, JOB_COMPLETE)

    def _on_work_fail(self, link: ClientLink, event: WorkFail) -> None:
        for request in link.jobs.end(event.handle):
            tracking.finish(request, JOB_FAILED)

    def _on_work_exception(self, link: ClientLink, event: WorkException) -> None:
        for request in link.jobs.end(event.handle):
            request._gm_raw_exception = event.data
            tracking.finish(request, JOB_FAILED)

    def _on_work_data(self, link: ClientLink, event: WorkData) -> None:
        size = len(event.data) + UPDATE_COST
        self._on_update(link, event, size, lambda updates: updates.add_data(event.data))

    def _on_work_warning(self, link: ClientLink, event: WorkWarning) -> None:
        size = len(event.data) + UPDATE_COST
        self._on_update(link, event, size, lambda updates: updates.add_warning(event.data))

    def _on_work_status(self, link: ClientLink, event: WorkStatus) -> None:
        status: JobStatus = {
            "handle": to_text(event.handle),
            "known": True,
            "running": True,
            "numerator": number(event.numerator),
            "denominator": number(event.denominator),
            "time_received": self._wall_clock(),
        }
        for request in link.jobs.receivers(event.handle):
            request._gm_status = status.copy()
        progress = status["numerator"], status["denominator"]
        self._on_update(link, event, UPDATE_COST, lambda updates: updates.add_progress(*progress))

    @staticmethod
    def _on_update(
        link: ClientLink,
        event: WorkData | WorkWarning | WorkStatus,
        size: int,
        add: Callable[[Updates], bool],
    ) -> None:
        """Call `add` to append an update to each of the job's requests, and notify their waits.

        Fail the requests that have too many unread updates, or whose call has.
        """
        unread = []
        for request in link.jobs.receivers(event.handle):
            waits = request._gm_waits
            has_room = True
            for wait in waits:
                has_room &= wait.make_room(size)
            if has_room and add(tracking.updates_of(request)):
                for wait in waits:
                    wait.request_updated(request)
            else:
                unread.append(request)
        if unread:
            link.jobs[to_text(event.handle)].detach(unread)
            error = GearmanError(
                f"the job, or its call of updates(), has more than {MAX_UNREAD_UPDATES} bytes of "
                "unread updates"
            )
            for request in unread:
                tracking.finish(request, JOB_FAILED, error)

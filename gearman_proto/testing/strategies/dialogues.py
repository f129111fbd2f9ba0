"""Legal dialogues of a client or a worker with a server, and the bytes of one side.

A server replies to the requests of one connection in order, with any delay. In between, it sends
packets that are not replies: updates and results to the submitter of a job, and NOOP to a sleeping
worker.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from gearman_proto.records import record, replaced
from gearman_proto.wire import packets as events
from gearman_proto.wire.packets import (
    BY_NAME,
    EVENT_CLASSES,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    Event,
    PacketEvent,
    Role,
    TextLine,
)

from ..packing import pack_event  # noqa: TID252
from .admin import admin_commands, admin_lines, admin_replies
from .values import check_role, events_of, packets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy


# Maximum number of packets of a stream, and of steps of a dialogue. The replies that are pending at
# its end don't count.
_MOST: Final = 20
_FOREGROUND: Final = ("SUBMIT_JOB", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_LOW", "SUBMIT_REDUCE_JOB")
_LIKELY: Final = (
    *(events.SubmitJob, events.SubmitJobHigh, events.OptionReq),
    *(events.GrabJob, events.GrabJobUniq, events.PreSleep),
)
_ENDS: Final = (events.WorkComplete, events.WorkFail, events.WorkException)
_WORK: Final = (*_ENDS, events.WorkData, events.WorkWarning, events.WorkStatus)


@record(frozen=True)
class Turn:
    """One packet, or one line of text, of a dialogue.

    Attributes:
        sender: The role of its sender: Role.SERVER, or the role of the other side.
        event: The packet or the line of text.
    """

    sender: Role
    event: Event

    @property
    def data(self) -> bytes:
        """The bytes of the event."""
        magic = MAGIC_RESPONSE if self.sender is Role.SERVER else MAGIC_REQUEST
        return pack_event(self.event, magic)


@record(frozen=True)
class Session:
    """A complete dialogue on one connection. At its end, every request has its reply.

    Attributes:
        role: The role of the side that is not the server.
        turns: The packets and lines of text, in order.
    """

    role: Role
    turns: tuple[Turn, ...]

    def sent_by(self, sender: Role) -> tuple[Event, ...]:
        """Return the events sent by one side, Role.SERVER or `role`, in order."""
        return tuple(turn.event for turn in self.turns if turn.sender is sender)


@record(frozen=True)
class Stream:
    """Valid bytes that one end of a connection receives.

    Attributes:
        data: The bytes.
        events: The events that they encode.
        asked: The events that the receiver has sent before. Empty for a server.
    """

    data: bytes
    events: tuple[Event, ...]
    asked: tuple[Event, ...] = ()


class _Dialogue:
    """A dialogue under construction.

    Each request is drawn together with its reply and the updates of its job, which are sent later.
    The other steps draw nothing, so Hypothesis can leave out each of them when it shrinks.
    """

    def __init__(self, draw: DrawFn, role: Role, *, text: bool) -> None:
        self.turns: list[Turn] = []
        self._draw = draw
        self._role = role
        self._requests = _requests(role, text=text)
        # The pending replies, each with the updates of its job.
        self._owed: deque[tuple[list[Event], deque[PacketEvent]]] = deque()
        # The unsent updates of the client's jobs, and of the worker's, by handle.
        self._wanted: dict[bytes, deque[PacketEvent]] = {}
        self._held: dict[bytes, deque[PacketEvent]] = {}
        self._sleeps = False
        self._exceptions = False

    def ask(self) -> None:
        """Send a request, or a packet without a reply, from the side that is not the server."""
        request = self._draw(self._requests)
        if not isinstance(request, PacketEvent):
            self._say(self._role, request.event)
            self._owed.append((_lines(self._draw(admin_replies(request)).data), deque()))
            return
        self._say(self._role, request)
        self._sleeps = self._sleeps or isinstance(request, events.PreSleep)
        if request.packet.answers:
            reply = self._draw_reply(request)
            self._owed.append(([reply], self._draw_news(request, reply)))

    def answer(self) -> None:
        """Send the server's reply to the oldest pending request."""
        if not self._owed:
            return
        answers, news = self._owed.popleft()
        for answer in answers:
            self._say(Role.SERVER, answer)
            if answer == events.OptionRes(b"exceptions"):
                self._exceptions = True
            elif news and isinstance(answer, PacketEvent):
                jobs = self._wanted if isinstance(answer, events.JobCreated) else self._held
                # A server can reply with one handle to several submits of one unique.
                jobs.setdefault(type(answer).arguments(answer)[0], news)

    def push(self) -> None:
        """Send a packet from the server that is not a reply."""
        if self._wanted:
            handle, event = self._next_news(self._wanted)
            if isinstance(event, events.WorkException) and not self._exceptions:
                event = events.WorkFail(handle, b"")
            self._say(Role.SERVER, event)
        elif self._sleeps:
            self._sleeps = False
            self._say(Role.SERVER, events.Noop())

    def work(self) -> None:
        """Send a worker's update of a job that it was assigned."""
        if self._held:
            _, event = self._next_news(self._held)
            self._say(self._role, event)

    def end(self) -> None:
        """Send all pending replies and updates."""
        while self._owed:
            self.answer()
        while self._wanted:
            self.push()
        while self._held:
            self.work()

    def _say(self, sender: Role, event: Event) -> None:
        self.turns.append(Turn(sender, event))

    def _draw_reply(self, request: PacketEvent) -> PacketEvent:
        packet = request.packet
        name = self._draw(st.sampled_from([*packet.answers, "ERROR"]))
        reply: PacketEvent = self._draw(events_of(EVENT_CLASSES[BY_NAME[name].number], self._role))
        if name != "ERROR" and packet.args and not packet.is_submit:
            # The reply repeats the first argument of the request.
            (repeated, *_) = type(request).arguments(request)
            reply = replaced(reply, **{reply.packet.args[0]: repeated})
        return reply

    def _draw_news(self, request: PacketEvent, reply: PacketEvent) -> deque[PacketEvent]:
        """Draw updates of the job that `reply` is about, up to its end at most."""
        if isinstance(reply, events.JobCreated) and request.packet.name in _FOREGROUND:
            receiver = self._role
        elif isinstance(reply, (events.JobAssign, events.JobAssignUniq, events.JobAssignAll)):
            receiver = Role.SERVER
        else:
            return deque()
        news = self._draw(st.lists(packets(receiver, _WORK), max_size=3))
        ends = [number for number, event in enumerate(news, 1) if isinstance(event, _ENDS)]
        return deque(news[: ends[0]] if ends else news)

    @staticmethod
    def _next_news(jobs: dict[bytes, deque[PacketEvent]]) -> tuple[bytes, PacketEvent]:
        """Remove and return the next update, taking turns between the jobs."""
        handle = next(iter(jobs))
        news = jobs.pop(handle)
        event = replaced(news.popleft(), handle=handle)
        if news:
            jobs[handle] = news
        return handle, event


@functools.cache
def _requests(role: Role, *, text: bool) -> SearchStrategy[Any]:
    """Packets that start an exchange, from a client or a worker, mostly of the _LIKELY kinds.

    If `text` is true, also text commands.
    """
    kinds = [
        kind
        for kind in EVENT_CLASSES.values()
        # The `work` step sends a worker's updates. Servers ignore ALL_YOURS.
        if kind.packet.sender & role and kind not in (*_WORK, events.AllYours)
    ]
    likely = packets(Role.SERVER, [kind for kind in _LIKELY if kind in kinds])
    others: SearchStrategy[Any] = packets(Role.SERVER, kinds)
    if text:
        others |= admin_commands()
    return st.sampled_from([likely, others]).flatmap(lambda chosen: chosen)


def _lines(data: bytes) -> list[Event]:
    """Return the lines of a reply."""
    lines: list[Event] = []
    for line in data.split(b"\n")[:-1]:
        ending = b"\r\n" if line.endswith(b"\r") else b"\n"
        lines.append(TextLine(line.removesuffix(b"\r"), ending))
    return lines


_STEPS: Final = st.sampled_from(
    [
        *(None, _Dialogue.ask, _Dialogue.answer, _Dialogue.push, _Dialogue.work),
        *(_Dialogue.ask, _Dialogue.answer, _Dialogue.push, _Dialogue.work),
    ]
)


@st.composite
def _sessions(draw: DrawFn, role: Role, *, text: bool) -> Session:
    dialogue = _Dialogue(draw, role, text=text)
    for _ in range(_MOST):
        step = draw(_STEPS)
        if step is None:
            break
        step(dialogue)
    dialogue.end()
    return Session(role, tuple(dialogue.turns))


def sessions(
    role: Role = Role.CLIENT | Role.WORKER, *, text: bool = True
) -> SearchStrategy[Session]:
    """Legal dialogues of both sides of a connection.

    Each request gets its reply, in order and possibly late. A server sends updates of a job only
    between its JOB_CREATED and its end. A worker sends updates only of jobs that it was assigned.
    The simplest dialogue is empty.

    Args:
        role: The role of the side that is not the server: a client, a worker, or both at once.
        text: If true, text commands and their replies are mixed with the packets.

    Raises:
        TypeError: `role` is not a Role.
        ValueError: `role` includes Role.SERVER.
    """
    if Role.SERVER in check_role(role):
        raise ValueError("the role is that of the side that is no server")
    return _sessions(role, text=text)


def streams(role: Role, *, text: bool = True) -> SearchStrategy[Stream]:
    """Legal streams that `role` can receive, with their events and the earlier requests of `role`.

    A server receives any requests and text commands. Other roles receive the server's side of one
    of `sessions`. The simplest stream is empty.

    Args:
        role: The role of the receiver.
        text: If true, lines of text are mixed with the packets. If false, there are only packets,
            for a parser that does not handle text.

    Raises:
        TypeError: `role` is not a Role.
    """
    if check_role(role) is Role.SERVER:
        requests: SearchStrategy[Event] = packets(role)
        if text:
            requests |= admin_lines()
        return st.lists(requests, max_size=_MOST).map(lambda events: _stream(events, MAGIC_REQUEST))
    return sessions(role, text=text).map(
        lambda session: _stream(session.sent_by(Role.SERVER), MAGIC_RESPONSE, session.sent_by(role))
    )


def _stream(events: Sequence[Event], magic: bytes, asked: tuple[Event, ...] = ()) -> Stream:
    data = b"".join(pack_event(event, magic) for event in events)
    return Stream(data, tuple(events), asked)

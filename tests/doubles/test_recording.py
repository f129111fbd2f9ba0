"""Recordings of the traffic between a server and its peers: saving, decoding and replaying."""

from __future__ import annotations

import dataclasses
import socket
import time
from typing import TYPE_CHECKING

import pytest

from gearman_proto.testing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    CanDo,
    EchoReq,
    EchoRes,
    GrabJob,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    SetClientId,
    SubmitJobBg,
    SubmitJobEpoch,
    TextLine,
    WorkComplete,
    WorkData,
)
from gearman_sync import GearmanAdminClient, GearmanClient, JobServer
from gearman_sync.testing import (
    Element,
    Expectation,
    Recorder,
    Recording,
    ReplayServer,
    ScriptedClient,
    ScriptedServer,
    replay,
)
from tests.engines.server_replay import DIFFERENT
from tests.recordings import FOLDERS, VECTORS
from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gearman_proto.wire.packets import Event, PacketEvent

    Server = Gearmand | EmbeddedServer

pytestmark = pytest.mark.usefixtures("no_hang", "no_leak")


def element(sender: str, *events: PacketEvent, conn: str = "client") -> Element:
    """Return an element with the packets of some events."""
    magic = MAGIC_RESPONSE if sender == "server" else MAGIC_REQUEST
    return Element(sender, conn, b"".join(pack_event(each, magic) for each in events))


@pytest.fixture
def client2() -> list[Element]:
    """GRAB_JOB and NO_JOB on a second connection."""
    return [
        element("client", GrabJob(), conn="client2"),
        element("server", NoJob(), conn="client2"),
    ]


@pytest.mark.parametrize("prefix", FOLDERS)
def test_recording_saved_after_load_is_unchanged(prefix: str, tmp_path: Path) -> None:
    paths = list(FOLDERS[prefix].glob("*.json"))
    assert paths
    for path in paths:
        copy = tmp_path / path.name
        Recording.load(path).save(copy)
        assert copy.read_text() == path.read_text().rstrip("\n") + "\n"


def test_element_decodes_as_recorded() -> None:
    """Decode as the first recorder did, except for malformed packets and lines."""
    odd = {"02_pipelined_and_split", "30_bad_magic", "32_response_magic_and_unexpected"}
    for name in VECTORS.keys() - odd:
        for element in VECTORS[name].exchange:
            assert Element(element.sender, element.conn, element.data).decoded == element.decoded


def exchange(address: tuple[str, int], data: bytes = b"data") -> None:
    """Run a worker that is woken, a client and an admin client."""
    with ScriptedClient(address) as worker, GearmanClient([address]) as client:
        worker.send(CanDo(b"reverse"), GrabJob())
        worker.expect(NoJob)
        worker.send(PreSleep())
        worker.echo()
        submitting = spawn(client.submit_job, "reverse", data)
        worker.expect(Noop)
        worker.send(GrabJobUniq())
        job = worker.expect(JobAssignUniq, data=data)
        worker.send(WorkData(job.handle, b"a"), WorkComplete(job.handle, b"tad"))
        assert submitting.result(PATIENCE).result == b"tad"
        assert job.unique.decode() == submitting.result().unique
        with GearmanAdminClient([address]) as admin:
            assert admin.get_status()[0].workers == 1
            assert admin.get_version()


@pytest.fixture
def recording(launch: Callable[[], Server]) -> Recording:
    """The recording of that exchange with gearmand, and with a JobServer."""
    with Recorder(launch().address, name="reverse") as recorder:
        exchange(recorder.address)
    return recorder.recording


def test_recording_contains_the_exchange(recording: Recording, tmp_path: Path) -> None:
    assert recording.connections == ["worker", "client", "admin"]
    for conn, expected in {
        "worker": "CAN_DO GRAB_JOB <NO_JOB PRE_SLEEP ECHO_REQ <ECHO_RES <NOOP GRAB_JOB_UNIQ "
        "<JOB_ASSIGN_UNIQ WORK_DATA WORK_COMPLETE close",
        "client": "OPTION_REQ SUBMIT_JOB <OPTION_RES <JOB_CREATED <WORK_DATA <WORK_COMPLETE close",
        "admin": "TEXT <TEXT TEXT <TEXT close",
    }.items():
        shown = [
            "<" * each.of_server + (each.decoded.split(" '")[0].split(" ")[-1] or "close")
            for each in recording.exchange
            if each.conn == conn
        ]
        assert sorted(shown) == sorted(expected.split())
    status = Element("server", "admin", b"reverse\t0\t0\t1\n.\n")
    assert status in recording.exchange
    path = tmp_path / "reverse.json"
    recording.save(path)
    assert Recording.load(path) == recording


def test_recording_of_a_server_that_closes_replays() -> None:
    """Record the data before the end of the connection, although the reply is incomplete."""
    lines = b"f\t0\t0\t0\n"
    with ScriptedServer() as server:
        server.expect(TextLine(b"status")).send_raw(lines).close()
        with Recorder(server.address) as recorder, ScriptedClient(recorder.address) as client:
            client.send(TextLine(b"status"))
            assert client.rest() == lines
        ended = Element("server", "admin", closes=True)
        status = Element("admin", "admin", b"status\r\n")
        assert recorder.recording.exchange[:3] == [status, Element("server", "admin", lines), ended]
        server.expect(TextLine(b"status")).send_raw(lines).close()
        assert replay(recorder.recording, server.address) == []


def test_replay_joins_the_recorded_lines_of_a_list() -> None:
    """Replay a list whose lines are elements of their own, in any order."""
    lines = [b"f\t0\t0\t0\n", b"g\t0\t0\t0\n", b".\n"]
    exchange = [Element("admin", "admin", b"status\n")]
    exchange += [Element("server", "admin", line) for line in lines]
    with ScriptedServer() as server:
        server.expect(TextLine).send_raw(lines[1] + lines[0] + lines[2])
        assert replay(Recording(exchange), server.address) == []


def test_recording_replays_with_all_servers_and_peers(
    recording: Recording, start_gearmand: Callable[..., Gearmand]
) -> None:
    with JobServer() as server:
        assert replay(recording, server.address) == []
    assert replay(recording, start_gearmand().address) == []
    with ReplayServer(recording) as replayed:  # It accepts other uniques.
        exchange(replayed.address)


def play(server: ReplayServer, *sent: Event | bytes, closes: bool = True) -> None:
    """Send events or bytes to a server. Then receive until it closes, or check it."""
    with server, ScriptedClient(server.address) as client:
        for each in sent:
            if isinstance(each, bytes):
                client.send_raw(each)
            else:
                client.send(each)
        if closes:
            client.rest()
        else:
            server.check()


SAME = SubmitJobBg(b"f", b"recorded", b"")


@pytest.mark.parametrize(
    ("recorded", "sent", "problem"),
    [
        (
            [CanDo(b"f"), GrabJob()],
            [CanDo(b"f"), PreSleep()],
            "1, client: .*GRAB.*, and got REQ P",
        ),
        (
            [CanDo(b"f")],
            [CanDo(b"another")],
            "connection begins with, and got REQ CAN_DO",
        ),
        ([CanDo(b"f")], [CanDo(b"f"), GrabJob()], "expected nothing more, and got REQ GRAB_JOB"),
        ([CanDo(b"f")], [b"\0BAD"], "begins with, and got PARTIAL 00424144"),
        # Two jobs that had one unique when they were recorded must have one.
        (
            [SAME] * 2,
            [SubmitJobBg(b"f", b"%d" % at, b"") for at in (0, 1)],
            "and got REQ SUBMIT_JOB_BG",
        ),
    ],
)
def test_replay_server_with_other_packets_raises(
    recorded: list[PacketEvent], sent: list[Event | bytes], problem: str
) -> None:
    vector = Recording([element("client", each) for each in recorded])
    with pytest.raises(AssertionError, match=problem):
        play(ReplayServer(vector), *sent)


def test_replay_server_with_missing_packets_raises() -> None:
    vector = Recording([element("client", CanDo(b"f")), element("client", GrabJob())])
    with pytest.raises(AssertionError, match="element 1, client: REQ GRAB_JOB '' did not come"):
        play(ReplayServer(vector, timeout=0.05), CanDo(b"f"), closes=False)


def test_replay_server_answers_additional_echoes() -> None:
    """Answer additional echoes and options, which depend on settings and on the clock."""
    vector = Recording([element("client", GrabJob()), element("server", NoJob())])
    with ReplayServer(vector) as server, ScriptedClient(server.address) as client:
        client.send(OptionReq(b"exceptions"))
        client.expect(OptionRes)
        client.send(SetClientId(b"me"), GrabJob())
        client.expect(NoJob)
        client.echo()


# Client and server replay of all recordings.

# Recordings with peers that close a connection. The replay then polls the server's list.
CLOSING = {
    name
    for name, vector in VECTORS.items()
    if any(each.closes and not each.of_server for each in vector.exchange)
}


@pytest.mark.parametrize("name", sorted(VECTORS.keys() - CLOSING))
def test_replay_against_the_replay_server_finds_no_differences(name: str) -> None:
    vector = VECTORS[name]
    at_once = [dataclasses.replace(each, pause=0.0) for each in vector.exchange]
    vector = dataclasses.replace(vector, exchange=at_once)
    with ReplayServer(vector) as server:
        assert replay(vector, server.address) == []


#: Samples of all kinds: lists, coalescing, errors, chunks, disconnects, text.
SOME = [
    "02_pipelined_and_split",
    "08_exception_without_option",
    "11_coalesce_two_clients",
    "19_worker_dies_requeue",
    "24_wakeup_all_once",
    "30_bad_magic",
    "36_abandoned_then_resubmitted",
    "39_cancel_running",
    "40_admin_tour",
    "42_admin_create_drop",
    "44_text_and_binary_mixed",
]


@pytest.mark.parametrize("name", SOME)
def test_gearmand_replies_as_recorded(name: str, start_gearmand: Callable[..., Gearmand]) -> None:
    vector = VECTORS[name]
    assert replay(vector, start_gearmand(*vector.server_args[2:]).address) == []


@pytest.mark.parametrize("name", SOME)
def test_job_server_differs_only_where_listed(name: str) -> None:
    """Differ only in the recordings that tests/engines lists."""
    is_different = name in DIFFERENT
    with JobServer() as server:
        differences = replay(VECTORS[name], server.address, timeout=0.2 if is_different else 5.0)
    assert bool(differences) == is_different


def test_replay_with_equal_handles_finds_a_difference() -> None:
    """Accept any handles, as long as equal ones stay equal and different ones differ."""
    vector = Recording(
        [
            element("client", SubmitJobBg(b"f", b"1", b""), SubmitJobBg(b"f", b"2", b"")),
            element("server", JobCreated(b"H:1")),
            element("server", JobCreated(b"H:2")),
        ]
    )
    with ScriptedServer() as server:
        server.expect(SubmitJobBg).times(2).answer(lambda event: JobCreated(b"X:" + event.unique))
        assert replay(vector, server.address) == []
        server.expect(SubmitJobBg).times(2).answer(JobCreated(b"X:1"))
        (difference,) = replay(vector, server.address)
    assert difference.expected == "RES JOB_CREATED 'H:2'"


def test_replay_waits_until_the_server_has_received_all(client2: list[Element]) -> None:
    vector = Recording([element("client", PreSleep()), *client2])
    with ScriptedServer() as server:
        for wanted, answer in (
            (PreSleep, []),
            (EchoReq, [EchoRes(b"settled?")]),
            (GrabJob, [NoJob()]),
            (EchoReq, [EchoRes(b"settled?")]),
        ):
            server.expect(wanted).answer(*answer)
        assert replay(vector, server.address) == []


def test_replay_waits_until_the_server_has_noticed_a_close() -> None:
    vector = Recording(
        [
            element("client", GrabJob()),
            element("server", NoJob()),
            Element("client", "client", closes=True),
        ]
    )
    with ScriptedServer() as server:
        server.whenever(GrabJob).answer(NoJob())
        for connections in (2, 2, 2, 1):
            lines = b"8 127.0.0.1 - :\n" * connections
            server.expect(TextLine(b"workers")).send_raw(lines + b".\n")
        assert replay(vector, server.address) == []


def test_replay_server_waits_for_a_complete_write(client2: list[Element]) -> None:
    """Delay the replies on other connections until the server has received the complete write."""
    vector = Recording([element("client", CanDo(b"f"), PreSleep()), *client2])
    with (
        ReplayServer(vector) as server,
        ScriptedClient(server.address) as first,
        ScriptedClient(server.address) as second,
    ):
        first.send(CanDo(b"f"))
        first.echo()
        second.send(GrabJob())
        second.send_anyway(EchoReq(b"x"))
        assert second.sock.recv(100)[12:] == b"x"
        first.send(PreSleep())
        second.sock.settimeout(5)
        assert second.sock.recv(100)[4:8] == b"\0\0\0\x0a"


def test_replay_against_a_server_without_echoes_passes(client2: list[Element]) -> None:
    grab = element("client", GrabJob())
    vector = Recording([grab, client2[0], grab])
    with ScriptedServer() as server:
        server.whenever(EchoReq).silence()
        server.expect(GrabJob).times(3)
        assert replay(vector, server.address, timeout=0.05) == []
        server.check()  # The last GRAB_JOB arrives after all echoes.
        assert len([event for event in server.events if isinstance(event, EchoReq)]) == 1


CLOSE = Element("server", "client", closes=True)


@pytest.mark.parametrize(
    ("recorded", "react", "got"),
    [
        (element("server", NoJob()), lambda grab: grab.answer(NoJob(), Noop()), "RES NOOP ''"),
        (element("server", NoJob()), lambda grab: grab.send_raw(b"\0BAD").close(), "PARTIAL 004"),
        (element("server", NoJob()), lambda grab: grab.close(), "the end of the connection"),
        (CLOSE, lambda grab: grab.answer(NoJob()).close(), "RES NO_JOB ''"),
        (CLOSE, lambda grab: grab.silence(), "nothing in 0.05 s"),
    ],
)
def test_replay_with_another_reply_finds_a_difference(
    recorded: Element, react: Callable[[Expectation], object], got: str
) -> None:
    vector = Recording([element("client", GrabJob()), recorded])
    with ScriptedServer() as server:
        react(server.expect(GrabJob))
        timeout = 0.05 if "0.05" in got else 5.0
        (difference,) = replay(vector, server.address, timeout=timeout)
    assert difference.got.startswith(got)
    assert str(difference).startswith(f"element {difference.at}, client: expected ")


def test_replay_and_replay_server_close_as_recorded() -> None:
    vector = Recording([element("client", GrabJob()), CLOSE])
    with ScriptedServer() as server:
        server.expect(GrabJob).close()
        assert replay(vector, server.address) == []
    with ReplayServer(vector) as replayed, ScriptedClient(replayed.address) as client:
        client.send(GrabJob())
        assert client.rest() == b""


def test_replay_shifts_the_times_of_delayed_jobs() -> None:
    submit = SubmitJobEpoch(b"f", b"", b"1000000002", b"x")
    vector = Recording(
        [element("client", submit), element("server", JobCreated(b"H:1"))], epoch_base=10**9
    )
    for base in (10**9, None):
        vector.epoch_base = base
        begin = time.time()
        with ScriptedServer() as server:
            server.expect(SubmitJobEpoch).answer(JobCreated(b"H:2"))
            assert replay(vector, server.address) == []
            (came,) = (each for each in server.events if isinstance(each, SubmitJobEpoch))
        if base is None:
            assert came.epoch == b"1000000002"
        else:
            assert begin + 1 <= int(came.epoch) <= time.time() + 3


# Odd traffic at the recorder.


def test_recorder_records_a_reset_as_a_close() -> None:
    with ScriptedServer() as server, Recorder(server.address) as recorder:
        client = ScriptedClient(recorder.address)
        client.echo()
        client.reset()
        eventually(lambda: not recorder.connections)
    assert recorder.recording.exchange == [
        element("client", EchoReq(b"ping")),
        element("server", EchoRes(b"ping")),
        Element("client", "client", closes=True),
    ]


def test_recorder_records_malformed_packets() -> None:
    for data, shown in ((b"\0REQ\0", "PARTIAL 0052455100"), (b"\0BAD", "PARTIAL 00424144")):
        with ScriptedServer(lambda peer: peer.rest()) as server:
            with Recorder(server.address) as recorder, ScriptedClient(recorder.address) as client:
                client.send_raw(data)
                client.sock.shutdown(socket.SHUT_WR)
                client.rest()
            assert [each.decoded for each in recorder.recording.exchange] == [shown, ""]


def test_recorder_names_connections_and_records_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_sync.testing.recording._PAUSE", 0.0)
    with JobServer() as server, Recorder(server.address) as recorder:
        clients = [ScriptedClient(recorder.address) for _ in range(4)]
        for client in clients:
            client.echo()
        time.sleep(0.01)
        clients[1].send(CanDo(b"f"))
        clients[1].echo()
        clients[2].send(SubmitJobEpoch(b"f", b"", b"%d" % (time.time() + 3600), b""))
        clients[2].expect(JobCreated)
        for client in clients:
            client.close()
    recording = recorder.recording
    assert recording.connections == ["client", "worker", "client2", "client3"]
    assert recording.epoch_base is not None
    assert 0 <= time.time() - recording.epoch_base < 60
    (pause,) = (each.pause for each in recording.exchange if each.decoded == "REQ CAN_DO 'f'")
    assert pause >= 0.01


@pytest.mark.parametrize(
    "text",
    ["no", "[]", "{}", '{"exchange": [1]}', '{"exchange": [], "other": 1}', '{"exchange": 1}'],
)
def test_load_of_an_invalid_recording_raises(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recording\.json is no recording: "):
        Recording.load(path)

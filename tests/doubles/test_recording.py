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


@pytest.mark.parametrize("prefix", FOLDERS)
def test_recording_saved_after_load_is_unchanged(prefix: str, tmp_path: Path) -> None:
    for path in FOLDERS[prefix].glob("*.json"):
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
    with Recorder(launch().address, name="reverse", server="a server") as recorder:
        exchange(recorder.address)
    return recorder.recording


def test_recording_contains_the_exchange(recording: Recording, tmp_path: Path) -> None:
    shown = [(each.sender, each.conn, each.decoded) for each in recording.exchange]
    created, assigned = (
        next(text.split("'")[1] for _, _, text in shown if name in text)
        for name in ("JOB_CREATED", "JOB_ASSIGN_UNIQ")
    )
    unique = assigned.split("\\x00")[2]
    version = next(text for _, _, text in shown if text.startswith("TEXT 'OK"))
    assert sorted(shown) == sorted(
        [
            ("worker", "worker", "REQ CAN_DO 'reverse'"),
            ("worker", "worker", "REQ GRAB_JOB ''"),
            ("server", "worker", "RES NO_JOB ''"),
            ("worker", "worker", "REQ PRE_SLEEP ''"),
            ("worker", "worker", "REQ ECHO_REQ 'ping'"),
            ("server", "worker", "RES ECHO_RES 'ping'"),
            ("client", "client", "REQ OPTION_REQ 'exceptions'"),
            ("server", "client", "RES OPTION_RES 'exceptions'"),
            ("client", "client", f"REQ SUBMIT_JOB 'reverse\\x00{unique}\\x00data'"),
            ("server", "client", f"RES JOB_CREATED '{created}'"),
            ("server", "worker", "RES NOOP ''"),
            ("worker", "worker", "REQ GRAB_JOB_UNIQ ''"),
            ("server", "worker", f"RES JOB_ASSIGN_UNIQ '{assigned}'"),
            ("worker", "worker", f"REQ WORK_DATA '{created}\\x00a'"),
            ("worker", "worker", f"REQ WORK_COMPLETE '{created}\\x00tad'"),
            ("server", "client", f"RES WORK_DATA '{created}\\x00a'"),
            ("server", "client", f"RES WORK_COMPLETE '{created}\\x00tad'"),
            ("admin", "admin", "TEXT 'status\\r\\n'"),
            ("server", "admin", "TEXT 'reverse\\t0\\t0\\t1\\n'; TEXT '.\\n'"),
            ("admin", "admin", "TEXT 'version\\r\\n'"),
            ("server", "admin", version),
            *[(side, side, "") for side in ("admin", "client", "worker")],
        ]
    )
    assert recording.connections == ["worker", "client", "admin"]
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


def test_replay_against_a_job_server_finds_no_differences(recording: Recording) -> None:
    with JobServer() as server:
        assert replay(recording, server.address) == []


def test_replay_against_gearmand_finds_no_differences(
    recording: Recording, start_gearmand: Callable[..., Gearmand]
) -> None:
    assert replay(recording, start_gearmand().address) == []


def test_replay_server_accepts_the_recorded_peers(recording: Recording) -> None:
    """Accept uniques other than the recorded ones."""
    with ReplayServer(recording) as server:
        exchange(server.address)


def play(server: ReplayServer, *events: Event, closes: bool = True) -> None:
    """Send events to a server. Then receive until it closes, or check it."""
    with server, ScriptedClient(server.address) as client:
        client.send(*events)
        if closes:
            client.rest()
        else:
            server.check()


def play_garbage(server: ReplayServer) -> None:
    with server, ScriptedClient(server.address) as client:
        client.send_raw(b"\0BAD" + bytes(8))
        client.rest()


def test_replay_server_with_other_packets_raises(recording: Recording) -> None:
    with pytest.raises(AssertionError, match=r"element 1, worker: .*GrabJob.*, and got PreSleep"):
        play(ReplayServer(recording), CanDo(b"reverse"), PreSleep())
    with pytest.raises(AssertionError, match="what a recorded connection begins with, and got Can"):
        play(ReplayServer(recording), CanDo(b"another"))


def test_replay_server_with_missing_packets_raises(recording: Recording) -> None:
    with pytest.raises(AssertionError, match="element 1, worker: REQ GRAB_JOB '' did not come"):
        play(ReplayServer(recording, timeout=0.05), CanDo(b"reverse"), closes=False)


def test_replay_server_answers_additional_echoes() -> None:
    """Answer additional echoes and options, which depend on settings and on the clock."""
    vector = Recording([element("client", GrabJob()), element("server", NoJob())])
    with ReplayServer(vector) as server, ScriptedClient(server.address) as client:
        client.send(OptionReq(b"exceptions"))
        client.expect(OptionRes)
        client.send(SetClientId(b"me"), GrabJob())
        client.expect(NoJob)
        client.echo()


def test_replay_server_with_different_uniques_raises() -> None:
    """Require one unique for two jobs that had one unique when they were recorded."""
    same = SubmitJobBg(b"f", b"recorded", b"")
    vector = Recording([element("client", same, same)])
    with ReplayServer(vector) as server, ScriptedClient(server.address) as client:
        client.send(*[SubmitJobBg(b"f", b"mine", b"")] * 2)
    with pytest.raises(AssertionError, match="and got SubmitJobBg"):
        play(ReplayServer(vector), *[SubmitJobBg(b"f", b"u%d" % at, b"") for at in range(2)])


def test_replay_server_closes_as_recorded() -> None:
    vector = Recording([element("client", GrabJob()), Element("server", "client", closes=True)])
    with ReplayServer(vector) as server, ScriptedClient(server.address) as client:
        client.send(GrabJob())
        assert client.rest() == b""


def test_replay_server_with_additional_packets_raises() -> None:
    short = Recording([element("client", CanDo(b"f"))])
    with pytest.raises(AssertionError, match="expected nothing more, and got GrabJob"):
        play(ReplayServer(short), CanDo(b"f"), GrabJob())


def test_replay_server_with_garbage_raises() -> None:
    server = ReplayServer(Recording([element("client", CanDo(b"f"))]))
    with pytest.raises(AssertionError, match="expected Gearman, and got"):
        play_garbage(server)


# Client and server replay of all recordings.

# Recordings with peers that close a connection. The replay then polls the server's list.
CLOSING = {
    name
    for name, vector in VECTORS.items()
    if any(each.closes and not each.of_server for each in vector.exchange)
}
#: Recordings of bytes that a `Connection` rejects.
UNSOUND = {"30_bad_magic", "31_unknown_type", "33_missing_nul", "43_text_six_words"}


@pytest.mark.parametrize("name", sorted(VECTORS.keys() - CLOSING - UNSOUND))
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


def test_difference_as_text_has_both_replies() -> None:
    vector = VECTORS["42_admin_create_drop"]
    with JobServer() as server:
        first = replay(vector, server.address)[0]
    assert str(first) == (
        r"element 5, admin: expected TEXT 'abc\t0\t0\t0\n'; TEXT 'wxyz\t0\t0\t0\n'; TEXT '.\n', "
        r"and got TEXT 'abcd\t0\t0\t0\n'; TEXT 'wxyz\t0\t0\t0\n'; TEXT '.\n'"
    )


def element(side: str, *events: PacketEvent) -> Element:
    """Return an element with the packets of some events."""
    magic = MAGIC_RESPONSE if side == "server" else MAGIC_REQUEST
    data = b"".join(pack_event(each, magic) for each in events)
    return Element(side, "client" if side == "server" else side, data)


def test_replay_with_an_additional_reply_finds_a_difference() -> None:
    vector = Recording([element("client", GrabJob()), element("server", NoJob())])
    with ScriptedServer() as server:
        server.expect(GrabJob).answer(NoJob(), Noop())
        (difference,) = replay(vector, server.address)
    assert str(difference) == "element 2, client: expected nothing more, and got RES NOOP ''"


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


def test_replay_waits_until_the_server_has_received_all() -> None:
    no_job = dataclasses.replace(element("server", NoJob()), conn="client2")
    vector = Recording([element("client", PreSleep()), element("client2", GrabJob()), no_job])
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


def test_replay_server_waits_for_a_complete_write() -> None:
    """Delay the replies on other connections until the server has received the complete write."""
    no_job = dataclasses.replace(element("server", NoJob()), conn="client2")
    vector = Recording(
        [element("client", CanDo(b"f"), PreSleep()), element("client2", GrabJob()), no_job]
    )
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


def test_replay_against_a_server_without_echoes_passes() -> None:
    vector = Recording(
        [element("client", GrabJob()), element("client2", GrabJob()), element("client", GrabJob())]
    )
    with ScriptedServer() as server:
        server.whenever(EchoReq).silence()
        server.expect(GrabJob).times(3)
        assert replay(vector, server.address, timeout=0.05) == []
        server.check()  # The last GRAB_JOB arrives after all echoes.
        assert len([event for event in server.events if isinstance(event, EchoReq)]) == 1


def test_replay_with_a_missing_close_finds_a_difference() -> None:
    vector = Recording([element("client", GrabJob()), Element("server", "client", closes=True)])
    with ScriptedServer() as server:
        server.expect(GrabJob).close()
        assert replay(vector, server.address) == []
        server.expect(GrabJob).answer(NoJob()).close()
        (difference,) = replay(vector, server.address)
        assert difference.got == "RES NO_JOB ''"
        server.expect(GrabJob).silence()
        (difference,) = replay(vector, server.address, timeout=0.05)
        assert difference.got == "nothing in 0.05 s"


def test_replay_with_a_partial_packet_finds_a_difference() -> None:
    vector = Recording([element("client", GrabJob()), element("server", NoJob())])
    with ScriptedServer() as server:
        server.expect(GrabJob).send_raw(b"\0RES\0").close()
        (difference,) = replay(vector, server.address)
        assert difference.got == "PARTIAL 0052455300"
        server.expect(GrabJob).send_raw(b"\0BAD").close()
        (difference,) = replay(vector, server.address)
        assert difference.got == "PARTIAL 00424144"
        server.expect(GrabJob).close()
        (difference,) = replay(vector, server.address)
        assert difference.got == "the end of the connection"


def test_replay_shifts_the_times_of_delayed_jobs() -> None:
    submit = SubmitJobEpoch(b"f", b"", b"1000000002", b"x")
    vector = Recording(
        [element("client", submit), element("server", JobCreated(b"H:1"))], epoch_base=10**9
    )
    for base in (10**9, None):
        vector.epoch_base = base
        with ScriptedServer() as server:
            server.expect(SubmitJobEpoch).answer(JobCreated(b"H:2"))
            assert replay(vector, server.address) == []
            (came,) = (each for each in server.events if isinstance(each, SubmitJobEpoch))
        expected = time.time() + 2 if base else 1000000002
        assert abs(int(came.epoch) - expected) < 2


# Odd traffic at the recorder.


def test_recorder_records_a_reset_as_a_close() -> None:
    with ScriptedServer() as server, Recorder(server.address) as recorder:
        client = ScriptedClient(recorder.address)
        client.echo()
        client.reset()
        eventually(lambda: not recorder.connections)
    assert [(each.sender, each.decoded, each.closes) for each in recorder.recording.exchange] == [
        ("client", "REQ ECHO_REQ 'ping'", False),
        ("server", "RES ECHO_RES 'ping'", False),
        ("client", "", True),
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

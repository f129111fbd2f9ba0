"""`connection_list`, its items, and the settings of `connection_class`."""

from __future__ import annotations

import functools
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.contract.test_keepalive import connections as options_of
from tests.support import (
    PATIENCE,
    EmbeddedServer,
    Gearmand,
    Stunnel,
    black_hole,
    client_keys,
    eventually,
    free_port,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], Any]
    Server = Gearmand | EmbeddedServer

KINDS = pytest.mark.parametrize("kind", ["client", "worker", "admin"])


def make(module: Any, kind: str, *hosts: Any) -> Any:
    """Create a client or worker of a program, or an admin client."""
    if kind == "client":
        return module.GearmanClient(list(hosts))
    if kind == "worker":
        return module.GearmanWorker(list(hosts))

    class Admin(module.gearman.GearmanAdminClient):  # type: ignore[misc]
        connection_class = module.GearmanConnection

    return Admin(list(hosts))


def use(used: Any, kind: str, task: str) -> None:
    """Make the client, worker or admin client connect."""
    if kind == "client":
        used.submit_job(task, b"", background=True)
    elif kind == "worker":
        used.register_task(task, print)
        used.establish_worker_connections()
    else:
        used.ping_server()


# Settings.


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it does not list sockets")
@KINDS
def test_settings_reach_the_sockets(
    load: Load, kind: str, start_gearmand: Callable[[], Gearmand], task: str
) -> None:
    gearmand = start_gearmand()
    module = load("reconnecting")
    used = make(module, kind, gearmand.address)
    use(used, kind, task)
    (options,) = options_of(gearmand.port)
    expected = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 11, "TCP_KEEPCNT": 4}
    assert expected.items() <= options.items()
    used.connection_list[0].close()
    use(used, kind, task)  # A second socket has the options too.
    (options,) = options_of(gearmand.port)
    assert expected.items() <= options.items()
    used.shutdown()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it does not list sockets")
def test_settings_have_precedence(
    load: Load, start_gearmand: Callable[[], Gearmand], task: str
) -> None:
    """A server's dict overrides the connection, which overrides the class."""
    gearmand = start_gearmand()
    module = load("reconnecting")
    host = {"host": gearmand.host, "port": gearmand.port, "keepidle": 7}
    client = module.GearmanClient([host])
    client.connection_list[0].keepalive_count = 9
    use(client, "client", task)
    (options,) = options_of(gearmand.port)
    expected = {"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": 11, "TCP_KEEPCNT": 9}
    assert expected.items() <= options.items()
    client.shutdown()

    module.GearmanConnection.keepalive = False
    client = module.GearmanClient([])
    client.connection_list = [module.GearmanConnection(gearmand.host, gearmand.port)]
    use(client, "client", task)
    (options,) = options_of(gearmand.port)
    assert options["SO_KEEPALIVE"] == 0
    client.shutdown()


@KINDS
def test_connect_timeout_of_the_class_applies(load: Load, kind: str, task: str) -> None:
    module = load("reconnecting")
    module.GearmanConnection.connect_timeout = 0.1
    with black_hole() as hole:
        used = make(module, kind, hole)
        begun = time.monotonic()
        if kind == "worker":
            used.register_task(task, print)
            assert used.establish_worker_connections() == []
        else:
            with pytest.raises(module.gearman.errors.ServerUnavailable):
                use(used, kind, task)
        assert 0.1 <= time.monotonic() - begun < 5
        used.shutdown()


def test_tls_settings_connect(
    load: Load, tls_certificates: Path, tls_tunnel: Stunnel, task: str
) -> None:
    module = load("reconnecting")
    client = module.GearmanClient([])
    keys = client_keys(tls_certificates)
    connection = client.add_ssl_connection("localhost", tls_tunnel.port, **keys)
    assert client.submit_job(task, b"", background=True).complete
    assert connection.connected
    client.shutdown()
    made = module.GearmanConnection("localhost", tls_tunnel.port, *keys.values())
    assert made.address.certfile == keys["certfile"]


# connection_list.


@KINDS
def test_connected_follows_the_connection(
    load: Load, kind: str, server: Server, host: str, task: str
) -> None:
    """Check before, during and after a connection, and after reuse."""
    used = make(load("reconnecting"), kind, host)
    (connection,) = used.connection_list
    assert (connection.gearman_host, connection.gearman_port) == server.address
    for _ in range(3):
        assert not connection.connected
        use(used, kind, task)
        assert connection.connected
        assert used.connection_list == [connection]
        connection.close()
        connection.close()
    assert not connection.connected
    use(used, kind, task)
    used.shutdown()
    assert not connection.connected
    connection.close()


@KINDS
def test_connected_is_false_after_the_server_died(
    load: Load, kind: str, launch: Callable[[], Server], task: str
) -> None:
    """`connected` becomes False with the first call that detects the loss."""
    server = launch()
    module = load("reconnecting")
    used = make(module, kind, server.address)
    use(used, kind, task)
    server.kill()
    notice = functools.partial(use, used, kind, task)
    if kind == "worker":
        poll = used.poll_connections_until_stopped
        notice = functools.partial(poll, used.connection_list, lambda _: True)
    with pytest.raises(module.gearman.errors.ServerUnavailable):
        notice()
    assert not used.connection_list[0].connected
    server.start()
    eventually(lambda: works_again(used, kind, task))
    assert used.connection_list[0].connected
    used.shutdown()


def works_again(used: Any, kind: str, task: str) -> bool:
    try:
        use(used, kind, task)
    except ConnectionError:
        return False
    return bool(used.connection_list[0].connected)


def test_added_connections_are_used(
    load: Load, gearman: Any, server: Server, host: str, task: str
) -> None:
    module = load("reconnecting")
    client = module.GearmanClient([])
    with pytest.raises(gearman.errors.ServerUnavailable):
        client.submit_job(task, b"", background=True)
    connection = client.add_connection(server.address)
    assert client.connection_list == [connection]
    assert type(connection) is module.GearmanConnection
    assert client.submit_job(task, b"", background=True).complete
    assert connection.connected
    with pytest.raises(ValueError, match="port"):
        client.add_connection("host:no port")
    client.shutdown()


@pytest.mark.parametrize("form", [str, tuple, dict, "GearmanConnection", "library"])
def test_assigned_list_replaces_the_servers(
    gearman: Any, form: Any, server: Server, host: str, task: str
) -> None:
    """The list can contain connections or items of a host list. The previous list is forgotten."""
    name, port = server.address
    client = gearman.GearmanClient([f"127.0.0.1:{free_port()}"])
    client.connection_list = [
        {
            str: host,
            tuple: (name, port),
            dict: {"host": name, "port": port},
            "GearmanConnection": gearman.connection.GearmanConnection(name, port),
            "library": gearman.util.disambiguate_server_parameter(host),
        }[form]
    ]
    request = client.submit_job(task, b"", background=True)
    assert request.job.connection.get_address() == server.address
    (connection,) = client.connection_list
    assert isinstance(connection, gearman.connection.GearmanConnection)
    assert connection.connected
    client.shutdown()


@KINDS
def test_changed_list_is_refused_while_connected(
    load: Load, kind: str, host: str, task: str
) -> None:
    """The change is refused while a connection exists, and existing connections stay open."""
    module = load("reconnecting")
    used = make(module, kind, host)
    use(used, kind, task)
    (connection,) = used.connection_list
    added = used.add_connection("localhost:1")
    with pytest.raises(module.gearman.errors.InvalidClientState, match="can't be changed"):
        use(used, kind, task)
    assert (connection.connected, added.connected) == (True, False)
    used.connection_list.remove(added)
    use(used, kind, task)
    used.connection_list = [added]
    with pytest.raises(module.gearman.errors.InvalidClientState, match="can't be changed"):
        use(used, kind, task)
    connection.close()  # A connection that was removed from the list still belongs to the client.
    assert not connection.connected
    used.connection_list = [connection]
    use(used, kind, task)
    assert connection.connected
    used.shutdown()


def test_functions_and_client_id_survive_a_changed_list(
    gearman: Any, server: Server, host: str, task: str
) -> None:
    """Functions and the client id survive, although they were set before the server was added."""
    worker = gearman.GearmanWorker([])
    worker.register_task(task, lambda worker, job: worker.stop())
    worker.set_client_id(f"{task}-id")
    worker.connection_list = [host]
    client = gearman.GearmanClient([host])
    client.submit_job(task, b"", background=True)
    worker.work()
    assert server.counts(task)[0] == 0
    connections = worker.establish_worker_connections()
    eventually(lambda: f"{task}-id" in server.client_ids())
    connections[0].close()
    client.shutdown()


def test_connections_are_values(gearman: Any) -> None:
    kind = gearman.connection.GearmanConnection
    connection = kind("host", 1)
    assert connection == kind("host", "1")
    assert connection != kind("host", 2)
    assert connection != "host:1"
    assert {connection: 1}[kind("host", 1)] == 1
    assert connection.get_address() == ("host", 1)
    assert kind("host").gearman_port == kind("host", None).gearman_port == 4730
    assert repr(connection) == "<GearmanConnection host:1 connected=False>"
    assert not connection.connected
    connection.close()
    assert gearman.GearmanClient([("host", 1)]).connection_list == [connection]
    with pytest.raises(ValueError, match="port"):
        kind("host", "port")
    with pytest.raises(TypeError, match="host"):
        kind()


def test_dead_server_of_several_is_skipped(
    gearman: Any, start_worker: Any, server: Server, host: str, task: str
) -> None:
    start_worker(server.address, {task: echo})
    dead = f"127.0.0.1:{free_port()}"
    for hosts in ([dead, host], [host, dead]):
        client = gearman.GearmanClient(hosts)
        for _ in range(5):
            request = client.submit_job(task, b"x", poll_timeout=PATIENCE)
            assert request.result == b"x"
        states = {c.get_address(): c.connected for c in client.connection_list}
        assert states == {server.address: True, ("127.0.0.1", int(dead[10:])): False}
        client.shutdown()


def test_all_servers_dead_raises(gearman: Any, task: str) -> None:
    hosts = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    client = gearman.GearmanClient(hosts)
    for max_retries in (0, 0, 2):
        with pytest.raises(
            (gearman.client.ServerUnavailable, gearman.client.ExceededConnectionAttempts)
        ):
            client.submit_job(task, b"", max_retries=max_retries)
    with pytest.raises(gearman.client.ConnectionError):
        client.establish_connection(client.connection_list[0])
    worker = gearman.GearmanWorker(hosts)
    with pytest.raises(gearman.worker.ServerUnavailable):
        worker.work()


def test_clients_close_their_descriptors(gearman: Any, host: str, task: str) -> None:
    """Programs create a client for each call, so descriptors must be closed."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list a process's descriptors")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        client = gearman.GearmanClient([host])
        client.submit_job(task, b"", background=True)
        assert gearman.GearmanAdminClient([host]).get_version()
        if number % 2:
            client.shutdown()
    del client
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)


@KINDS
def test_repeated_close_leaves_no_connection(
    load: Load, kind: str, server: Server, host: str, task: str
) -> None:
    """The server never sees more than one connection of the client, and none at the end."""
    client_id = f"{task}-{kind}"
    used = make(load("reconnecting"), kind, host)
    if kind == "worker":
        used.set_client_id(client_id)
    for _ in range(30):
        use(used, kind, task)
        used.connection_list[0].close()
    eventually(lambda: server.client_ids().count(client_id) == 0)
    used.shutdown()


def test_sockets_are_not_inherited(gearman: Any, host: str, task: str) -> None:
    """A child process of a callback must not keep a connection open."""
    client = gearman.GearmanClient([host])
    client.submit_job(task, b"", background=True)
    address = host.split(":")
    for descriptor in range(3, 256):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                if sock.getpeername() == (address[0], int(address[1])):
                    assert not os.get_inheritable(descriptor)
        except OSError:
            continue
    client.shutdown()

"""`connection_list`, its items, and the settings of `connection_class`."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.test_keepalive import connections
from tests.support import PATIENCE, Gearmand, Stunnel, black_hole, client_keys, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], Any]

KINDS = pytest.mark.parametrize("kind", ["GearmanClient", "GearmanWorker", "GearmanAdminClient"])


def use(used: Any, kind: str, task: str) -> None:
    """Make the client, worker or admin client connect."""
    if kind == "GearmanClient":
        used.submit_job(task, b"", background=True)
    elif kind == "GearmanWorker":
        used.register_task(task, print)
        used.establish_worker_connections()
    else:
        used.ping_server()


# Settings.


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it does not list sockets")
@KINDS
def test_settings_reach_the_sockets(
    load: Load, kind: str, launch: Callable[[], Gearmand], task: str
) -> None:
    gearmand = launch()
    used = getattr(load("settings"), kind)([gearmand.address])
    expected = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 11, "TCP_KEEPCNT": 4}
    for _ in range(2):  # A second socket has the options too.
        use(used, kind, task)
        (options,) = connections(gearmand.port)
        assert expected.items() <= options.items()
        used.connection_list[0].close()
    used.shutdown()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it does not list sockets")
def test_settings_have_precedence(load: Load, launch: Callable[[], Gearmand], task: str) -> None:
    """A server's dict overrides the connection, which overrides the class."""
    gearmand = launch()
    module = load("settings")
    none = dict.fromkeys(("keyfile", "certfile", "ca_certs", "keepintvl"))
    host = {"host": gearmand.host, "port": gearmand.port, "keepidle": 7, **none}
    client = module.GearmanClient([host])
    client.connection_list[0].keepalive_count = 9
    client.submit_job(task, b"", background=True)
    expected = {"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": 11, "TCP_KEEPCNT": 9}
    (options,) = connections(gearmand.port)
    assert expected.items() <= options.items()
    client.shutdown()

    module.GearmanConnection.keepalive = False
    client = module.GearmanClient([])
    client.connection_list = [module.GearmanConnection(gearmand.host, gearmand.port)]
    client.submit_job(task, b"", background=True)
    (options,) = connections(gearmand.port)
    assert options["SO_KEEPALIVE"] == 0
    client.shutdown()


@KINDS
def test_connect_timeout_of_the_class_applies(load: Load, kind: str, task: str) -> None:
    module = load("settings")
    module.GearmanConnection.connect_timeout = 0.1
    with black_hole() as hole:
        used = getattr(module, kind)([hole])
        begun = time.monotonic()
        if kind == "GearmanWorker":
            used.register_task(task, print)
            assert used.establish_worker_connections() == []
        else:
            with pytest.raises(module.gearman.errors.ServerUnavailable):
                use(used, kind, task)
        assert 0.1 <= time.monotonic() - begun < PATIENCE / 2
        used.shutdown()


def test_tls_settings_connect(
    load: Load, tls_certificates: Path, tls_tunnel: Stunnel, task: str
) -> None:
    module = load("settings")
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
    load: Load, kind: str, server: Gearmand, host: str, task: str
) -> None:
    """Check before, during and after a connection, and after reuse."""
    used = getattr(load("settings"), kind)([host])
    (connection,) = used.connection_list
    assert (connection.gearman_host, connection.gearman_port) == server.address
    for close in (connection.close, connection.close, used.shutdown):
        assert not connection.connected
        use(used, kind, task)
        assert connection.connected
        assert used.connection_list == [connection]
        close()
        connection.close()
    assert not connection.connected


@KINDS
def test_connected_is_false_after_the_server_died(
    load: Load, kind: str, launch: Callable[[], Gearmand], task: str
) -> None:
    """`connected` becomes False with the first call that detects the loss."""
    server = launch()
    module = load("settings")
    used = getattr(module, kind)([server.address])
    use(used, kind, task)
    server.kill()
    notice = functools.partial(use, used, kind, task)
    if kind == "GearmanWorker":
        poll = used.poll_connections_until_stopped
        notice = functools.partial(poll, used.connection_list, lambda _: True)
    with pytest.raises(module.gearman.errors.ServerUnavailable):
        notice()
    assert not used.connection_list[0].connected
    server.start()

    def works_again() -> bool:
        with contextlib.suppress(ConnectionError):
            use(used, kind, task)
        return bool(used.connection_list[0].connected)

    eventually(works_again)
    used.shutdown()


def test_added_connections_are_used(load: Load, server: Gearmand, task: str) -> None:
    module = load("settings")
    client = module.GearmanClient([])
    with pytest.raises(module.gearman.errors.ServerUnavailable):
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
    gearman: Any, form: Any, server: Gearmand, host: str, task: str
) -> None:
    """The list can contain connections or items of a host list. The previous list is forgotten."""
    name, port = server.address
    client = gearman.GearmanClient(["127.0.0.1:1"])
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
    module = load("settings")
    used = getattr(module, kind)([host])
    use(used, kind, task)
    (connection,) = used.connection_list
    added = used.add_connection("localhost:1")
    with pytest.raises(module.gearman.errors.InvalidClientState, match="can't be changed"):
        use(used, kind, task)
    assert (connection.connected, added.connected) == (True, False)
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
    gearman: Any, client: Any, server: Gearmand, host: str, task: str
) -> None:
    """Functions and the client id survive, although they were set before the server was added."""
    worker = gearman.GearmanWorker([])
    worker.register_task(task, lambda worker, job: worker.stop())
    worker.set_client_id(f"{task}-id")
    worker.connection_list = [host]
    client.submit_job(task, b"", background=True)
    worker.work()
    assert server.counts(task)[0] == 0
    (connection,) = worker.establish_worker_connections()
    eventually(lambda: f"{task}-id" in server.client_ids())
    connection.close()


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

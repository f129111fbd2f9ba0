"""Test the parser of another library, pygearman 0.2.6, with a property that it violates."""

try:
    from gearman.connection import GearmanConnection, ProtocolError
    from hypothesis import HealthCheck, given, settings
except ModuleNotFoundError:
    raise SystemExit("this example needs two packages: pip install pygearman hypothesis") from None

from gearman_proto import text
from gearman_proto.testing import check_exceptions
from gearman_proto.testing.strategies import AdminReply, admin_replies


class Pygearman:
    def __init__(self) -> None:
        self.connection = GearmanConnection("nowhere")
        self.connection._is_client_side = True

    def receive(self, data: bytes) -> list[object]:
        self.connection._incoming_buffer.frombytes(data)
        self.connection.read_commands_from_buffer()
        return list(iter(self.connection.read_command, None))


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(admin_replies(text.status()))
def test_replies(reply: AdminReply[object]) -> None:
    check_exceptions(Pygearman, reply.data, ProtocolError)


if __name__ == "__main__":
    test_replies()

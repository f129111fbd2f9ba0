"""The packet numbers and the text commands, under their names in `gearman.protocol`."""

from __future__ import annotations

from typing import Final

from gearman_proto.wire.packets import PACKETS

#: The name of each packet number.
GEARMAN_COMMAND_TO_NAME: Final = {
    packet.number: f"GEARMAN_COMMAND_{packet.name}" for packet in PACKETS
}

GEARMAN_SERVER_COMMAND_CANCEL_JOB: Final = "cancel job"
GEARMAN_SERVER_COMMAND_GETPID: Final = "getpid"
GEARMAN_SERVER_COMMAND_MAXQUEUE: Final = "maxqueue"
GEARMAN_SERVER_COMMAND_SHOW_JOBS: Final = "show jobs"
GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS: Final = "show unique jobs"
GEARMAN_SERVER_COMMAND_SHUTDOWN: Final = "shutdown"
GEARMAN_SERVER_COMMAND_STATUS: Final = "status"
GEARMAN_SERVER_COMMAND_VERSION: Final = "version"
GEARMAN_SERVER_COMMAND_WORKERS: Final = "workers"

# GEARMAN_COMMAND_CAN_DO and so on.
globals().update({name: number for number, name in GEARMAN_COMMAND_TO_NAME.items()})


def get_command_name(cmd_type: int) -> str:
    """Return the name of a packet number, or the number as text if there is no such packet."""
    return GEARMAN_COMMAND_TO_NAME.get(cmd_type, str(cmd_type))

"""The packet numbers and text commands, with the names that `gearman.protocol` uses."""

from __future__ import annotations

from typing import Final

from gearman_proto.wire.packets import PACKETS

#: Packet names, by packet number.
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

# Define GEARMAN_COMMAND_CAN_DO and the constants of all other packets.
globals().update({name: number for number, name in GEARMAN_COMMAND_TO_NAME.items()})


def get_command_name(cmd_type: int) -> str:
    """Return the name of a packet, or its number as text if the number is unknown."""
    return GEARMAN_COMMAND_TO_NAME.get(cmd_type, str(cmd_type))

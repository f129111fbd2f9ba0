"""The requests that may be sent only with certain values, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError

from .packets import CanDoTimeout, Event, SubmitJobEpoch, WorkFail

if TYPE_CHECKING:
    from .packets import PacketType

#: Their names.
SPECIAL: Final = ("CAN_DO_TIMEOUT", "SUBMIT_JOB_EPOCH", "WORK_FAIL", "ALL_YOURS")


def check_special(packet: PacketType, event: Event) -> None:
    """Raise LocalProtocolError, unless `event`, which is one of SPECIAL, may be sent."""
    if isinstance(event, CanDoTimeout):
        _check_number(packet, event.timeout, constants.MAX_CAN_DO_TIMEOUT)
    elif isinstance(event, SubmitJobEpoch):
        _check_number(packet, event.epoch, constants.MAX_EPOCH)
    elif isinstance(event, WorkFail):
        if event.reason is not None:
            raise LocalProtocolError(
                "WORK_FAIL with anything behind the handle hangs libgearman's clients"
            )
    else:
        raise LocalProtocolError(
            "no server acts on ALL_YOURS, and gearmand's ERROR to it would pass for the "
            "answer to another request"
        )


def _check_number(packet: PacketType, text: bytes, largest: int) -> None:
    if not text.isdigit() or len(text) > 19 or int(text) > largest:
        raise LocalProtocolError(
            f"{packet.name}: {text[:80]!r} is not a number from 0 to {largest}"
        )

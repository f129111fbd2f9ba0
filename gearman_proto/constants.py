"""Names and numbers that every layer shares.

The ``PRIORITY_*`` and ``JOB_*`` values are those of python-gearman 2.x.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

__all__ = [
    "DEFAULT_ADMIN_TIMEOUT",
    "DEFAULT_CONNECT_TIMEOUT",
    "DEFAULT_GEARMAN_PORT",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_JOB_RETRIES",
    "DEFAULT_MAX_ABANDONED",
    "DEFAULT_MAX_ABILITIES",
    "DEFAULT_MAX_MEMORY",
    "DEFAULT_MAX_OUTAGE",
    "DEFAULT_MAX_PACKET_SIZE",
    "DEFAULT_MAX_UNREAD",
    "DEFAULT_POLL_INTERVAL",
    "DEFAULT_WARN_AFTER",
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "MAX_BODY_SIZE",
    "MAX_CAN_DO_TIMEOUT",
    "MAX_CLIENT_ID_SIZE",
    "MAX_COMMAND_SIZE",
    "MAX_COMMAND_WORDS",
    "MAX_EPOCH",
    "MAX_FUNCTION_SIZE",
    "MAX_HANDLE_SIZE",
    "MAX_PROGRESS_SIZE",
    "MAX_REDUCER_SIZE",
    "MAX_UNIQUE_SIZE",
    "MIN_CONNECT_TIMEOUT",
    "MIN_HEARTBEAT",
    "MIN_PACKET_SIZE",
    "MIN_POLL_INTERVAL",
    "MIN_WARN_AFTER",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "Priority",
    "Routing",
    "State",
]

#: The priority of a job.
Priority: TypeAlias = Literal["LOW", "HIGH"] | None
#: The state of a request.
State: TypeAlias = Literal["UNKNOWN", "PENDING", "CREATED", "FAILED", "COMPLETE"]
#: How a client chooses the server of a request.
Routing: TypeAlias = Literal["random", "unique"]

DEFAULT_GEARMAN_PORT: Final = 4730
#: Seconds to wait for a connection unless told otherwise.
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
#: Seconds that an admin client waits for an answer (python-gearman).
DEFAULT_ADMIN_TIMEOUT: Final = 10.0
#: Seconds without any server after which `work` gives up.
DEFAULT_MAX_OUTAGE: Final = 60.0
#: Seconds that a worker sleeps before it looks for jobs that servers did not tell of.
DEFAULT_POLL_INTERVAL: Final = 5.0
#: Seconds. Nobody could connect in less, and to try again and again would be a busy loop.
MIN_CONNECT_TIMEOUT: Final = 0.001
#: Seconds. To look more often would be a busy loop, as each look is a question to each server.
MIN_POLL_INTERVAL: Final = 0.01
#: Seconds that a server may be silent while a client waits for something, before it is asked.
DEFAULT_HEARTBEAT: Final = 30.0
#: Seconds. A server that is busy would be lost with less.
MIN_HEARTBEAT: Final = 0.1
#: Seconds after which a client warns of a job's function that no worker has registered.
DEFAULT_WARN_AFTER: Final = 10.0
#: Seconds. With less, a client would ask about jobs that are about to start.
MIN_WARN_AFTER: Final = 0.1
#: Bytes of submits that a client keeps for a server that leaves them unanswered, although the calls
#: that made them have given up. A server that lives answers as fast as bytes go over the network.
DEFAULT_MAX_ABANDONED: Final = 64 * 1024 * 1024
#: How often a job server runs a job again because its worker was lost.
DEFAULT_JOB_RETRIES: Final = 10
#: Functions that one connection to a job server may register for. Its line in the list of workers
#: has all of them, and readers of that have bounds of their own.
DEFAULT_MAX_ABILITIES: Final = 10_000
#: Bytes of what was sent to a peer that a job server keeps for it unread.
DEFAULT_MAX_UNREAD: Final = 64 * 1024 * 1024
#: Bytes of all that a job server keeps.
DEFAULT_MAX_MEMORY: Final = 1024 * 1024 * 1024

#: Normal priority.
PRIORITY_NONE: Final = None
#: Behind all of its function that are normal.
PRIORITY_LOW: Final = "LOW"
#: Before all of its function that are normal.
PRIORITY_HIGH: Final = "HIGH"

#: Not submitted, or the connection that carried it was lost.
JOB_UNKNOWN: Final = "UNKNOWN"
#: Submitted; the server has not acknowledged it yet.
JOB_PENDING: Final = "PENDING"
#: Acknowledged with JOB_CREATED.
JOB_CREATED: Final = "CREATED"
#: Ended with WORK_FAIL or WORK_EXCEPTION, or refused with ERROR.
JOB_FAILED: Final = "FAILED"
#: Ended with WORK_COMPLETE.
JOB_COMPLETE: Final = "COMPLETE"

# The limits below are gearmand 1.1.21's. A request beyond them is not always answered with an
# ERROR: some are met with silence, and some damage what comes after them. The recordings that are
# named are in tests/vectors.

#: Bytes. 64 are accepted, but stored cut to 63 and never coalesced (29_unique_63_and_64).
MAX_UNIQUE_SIZE: Final = 63
#: Bytes. A GET_STATUS for a longer handle is never answered.
MAX_HANDLE_SIZE: Final = 63
#: Bytes.
MAX_REDUCER_SIZE: Final = 64
#: Bytes. Longer ids are cut (45_worker_ids).
MAX_CLIENT_ID_SIZE: Final = 127
#: Bytes. JOB_ASSIGN_ALL (header, handle, function, unique, reducer and their NULs) has to fit the
#: receive buffer of 8192 bytes, else the job kills the connection of every worker that grabs it.
MAX_FUNCTION_SIZE: Final = 8192 - 12 - (63 + 1) - 1 - (63 + 1) - (64 + 1)
#: Bytes of the decimal text of a numerator or denominator. A longer denominator is not forwarded,
#: and costs the worker its connection.
MAX_PROGRESS_SIZE: Final = 11
#: Milliseconds. Some larger values of CAN_DO_TIMEOUT end the server's process.
MAX_CAN_DO_TIMEOUT: Final = 2**31 - 1
#: Seconds since 1970. SUBMIT_JOB_EPOCH with a number out of this range is never answered.
MAX_EPOCH: Final = 2**63 - 1
#: Bytes, with the line end. A longer text command is not taken.
MAX_COMMAND_SIZE: Final = 8192
#: Words. A text command of more closes the connection without a reply (43_text_six_words).
MAX_COMMAND_WORDS: Final = 5

#: Bytes of a packet's body.
MAX_BODY_SIZE: Final = 2**32 - 1
#: Bytes of one packet's body that a Connection takes from its peer unless told otherwise.
DEFAULT_MAX_PACKET_SIZE: Final = 256 * 1024 * 1024
#: Bytes that it has to take at least, for JOB_CREATED with the longest handle.
MIN_PACKET_SIZE: Final = MAX_HANDLE_SIZE + 1

"""Tools to test Gearman programs, and applications that use Gearman, over real sockets."""

from gearman_proto.testing.runs import JobRun

from .conversation import Conversation, Disconnected, Peer, ScriptedClient
from .drivers import DriverTests, DriverUnderTest
from .jobs import JobDouble
from .proxy import FaultyProxy, JournalEntry
from .recorder import Recorder
from .recording import Element, Recording
from .replaying import Difference, replay
from .replaying_server import ReplayServer
from .running import WorkerUnderTest
from .scripted import Expectation, ScriptedServer
from .sockets import black_hole
from .toxics import (
    Bandwidth,
    Corrupt,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
    Toxic,
)
from .worker import Failed, Gate, Raised, ScriptedJob, ScriptedWorker, echo, reverse

__all__ = [
    "Bandwidth",
    "Conversation",
    "Corrupt",
    "Difference",
    "Direction",
    "Disconnected",
    "DriverTests",
    "DriverUnderTest",
    "Element",
    "Expectation",
    "Failed",
    "FaultyProxy",
    "Gate",
    "HalfOpen",
    "JobDouble",
    "JobRun",
    "JournalEntry",
    "Latency",
    "LimitData",
    "Peer",
    "Raised",
    "Recorder",
    "Recording",
    "ReplayServer",
    "ResetPeer",
    "ScriptedClient",
    "ScriptedJob",
    "ScriptedServer",
    "ScriptedWorker",
    "Slicer",
    "SlowClose",
    "Stall",
    "Timeout",
    "Toxic",
    "WorkerUnderTest",
    "black_hole",
    "echo",
    "replay",
    "reverse",
]

"""Faults of judged peers by packet and kind, and the cases that notice them.

    python -m tests.conformance.faults            # print the tables of the documentation
    python -m tests.conformance.faults --write    # write them into the page
    python -m tests.conformance.faults --holes    # print the faults that no case notices

A kind of fault is a change to the packets of one type, such as a loss or a delay. Each packet type
and each kind make a cell of a table, with several faults: all packets change, or only the second or
tenth one of a connection, or only large ones. A case notices a fault if it fails in memory with one
of our engines behind connections that show the fault. A fault that no case notices is a hole in the
suite, unless `EXCUSES` gives a reason.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.suites import SUITES
from gearman_proto.wire.packets import BY_NAME, Role
from tests.conformance.__main__ import PAGE
from tests.conformance.lying import MANY, Lie, drop, packet, stale, twice
from tests.conformance.memory import outcome_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Seconds of virtual time that a case waits for a program.
_TIMEOUT: Final = 0.25

_MARK: Final = "<!-- made by python -m tests.conformance.faults --write -->"

#: The packets that change, by extent: how many pass first on each connection, how many change then,
#: and the size in bytes from which on they count.
EXTENTS: Final[dict[str, tuple[int, int, int]]] = {
    "each": (0, MANY, 0),
    "second": (1, 1, 0),
    "tenth": (9, 1, 0),
    "large": (0, MANY, 1 << 16),
}


@dataclass(frozen=True)
class Fault:
    """A change to the packets of one type.

    Attributes:
        side: The judged side.
        name: The direction and the type of the packets, as in `Lie`.
        kind: The kind of fault.
        extent: The packets that change.
    """

    side: str
    name: str
    kind: str
    extent: str

    def __str__(self) -> str:
        return f"{self.side} {self.name} {self.kind} {self.extent}"

    def lies(self) -> list[Lie]:
        """Return the lies that show the fault."""
        first, last, least = EXTENTS[self.extent]
        lies = KINDS[self.kind](self.name)
        for lie in lies:
            if lie.name == self.name:
                lie.first, lie.last, lie.least = first, last, least
        return lies


# Changes to one packet.


def _truncated(name: str) -> list[Lie]:
    return [Lie(name, lambda args: packet(name, *args[:-1], args[-1][:-1]))]


def _altered(number: int) -> Callable[[str], list[Lie]]:
    """Return the kind that changes a byte in the middle of an argument."""

    def alter(arg: bytes) -> bytes:
        middle = len(arg) // 2
        # No byte becomes a NUL, which would end the argument.
        return arg[:middle] + bytes([arg[middle] ^ 1 or 2]) + arg[middle + 1 :] if arg else arg

    def kind(name: str) -> list[Lie]:
        def change(args: list[bytes]) -> bytes:
            args[number] = alter(args[number])
            return packet(name, *args)

        return [Lie(name, change)]

    return kind


# Changes to the order of packets.


def _reordered(name: str) -> list[Lie]:
    """Exchange a packet with the next one of its type on the connection."""
    return _exchanged(name, lambda one, other: packet(name, *other) + packet(name, *one))


def _swapped(name: str) -> list[Lie]:
    """Exchange the last arguments of a packet and of the next one of its type."""
    return _exchanged(
        name,
        lambda one, other: packet(name, *one[:-1], other[-1]) + packet(name, *other[:-1], one[-1]),
    )


def _exchanged(name: str, exchange: Callable[[list[bytes], list[bytes]], bytes]) -> list[Lie]:
    held: dict[int, list[bytes]] = {}
    lie = Lie(name, lambda args: b"")

    def change(args: list[bytes]) -> bytes:
        one = held.pop(lie.connection, None)
        if one is not None:
            return exchange(one, args)
        held[lie.connection] = args
        return b""

    lie.change = change
    return [lie]


def _delayed(name: str) -> list[Lie]:
    """Hold a packet back until the next one, of any type, on the connection."""
    return _moved(name, lambda at, connection: at == connection)


def _misdirected(name: str) -> list[Lie]:
    """Send a packet on another connection, before its next packet."""
    return _moved(name, lambda at, connection: at != connection)


def _leaked(name: str) -> list[Lie]:
    """Send a copy of a packet on another connection too."""
    return _moved(name, lambda at, connection: at != connection, copies=True)


def _moved(name: str, belongs: Callable[[int, int], bool], *, copies: bool = False) -> list[Lie]:
    """Hold packets back until a packet passes where they belong."""
    held: list[tuple[int, bytes]] = []

    def carry(other: str) -> Lie:
        lie = Lie(other, lambda args: b"")

        def change(args: list[bytes]) -> bytes:
            before = [entry for entry in held if belongs(lie.connection, entry[0])]
            held[:] = [entry for entry in held if entry not in before]
            unit = args[0] if other[1:] == "TEXT" else packet(other, *args)
            if other == name:
                held.append((lie.connection, unit))
                unit = unit if copies else b""
            return b"".join(data for _, data in before) + unit

        lie.change = change
        return lie

    return [carry(other) for other in {name: None, **dict.fromkeys(_names(name[0]))}]


def _names(way: str) -> list[str]:
    return [*[way + name for name in BY_NAME], f"{way}TEXT"]


#: Kinds of faults: functions from the name of a packet to the lies.
KINDS: Final[dict[str, Callable[[str], list[Lie]]]] = {
    "lost": lambda name: [drop(name)],
    "duplicated": lambda name: [twice(name)],
    "reordered": _reordered,
    "swapped": _swapped,
    "truncated": _truncated,
    "altered-first": _altered(0),
    "altered-last": _altered(-1),
    "stale": lambda name: [stale(name, -1)],
    "delayed": _delayed,
    "leaked": _leaked,
    "misdirected": _misdirected,
}
#: Kinds that need an argument.
_OF_ARGUMENTS: Final = {
    "reordered",
    "swapped",
    "truncated",
    "altered-first",
    "altered-last",
    "stale",
}


#: Kinds that change pairs of packets, so that a single packet can't show them.
_OF_PAIRS: Final = {"reordered", "swapped", "stale"}

#: The roles of the other ends of a judged peer's connections, and its own.
_ROLES: Final = {
    "server": Role.CLIENT | Role.WORKER,
    "worker": Role.WORKER,
    "client": Role.CLIENT,
}


def all_faults(side: str) -> Iterator[Fault]:
    """Yield the faults of all packets that a judged peer sends or receives."""
    role = _ROLES[side]
    for packet_type in BY_NAME.values():
        for way, end in ((">", packet_type.sender), ("<", packet_type.receiver)):
            if not end & role:
                continue
            for kind, extent in itertools.product(KINDS, EXTENTS):
                if (
                    (kind in _OF_ARGUMENTS and not packet_type.args)
                    or (kind == "altered-first" and len(packet_type.args) == 1)
                    or (kind in _OF_PAIRS and extent in ("second", "tenth"))
                    or (extent == "large" and not packet_type.opaque)
                ):
                    continue
                yield Fault(side, way + packet_type.name, kind, extent)


_STATE: Final = "CAN_DO|CANT_DO|CAN_DO_TIMEOUT|RESET_ABILITIES|SET_CLIENT_ID"
_UPDATES: Final = "WORK_DATA|WORK_WARNING|WORK_STATUS"
_CONTENTS: Final = r"(altered-\w+|truncated|stale|swapped|reordered)"
#: Reasons why no case can notice some faults, by regular expressions for their texts.
EXCUSES: Final = {
    r"server >ALL_YOURS .*": "servers ignore ALL_YOURS",
    r"server >SUBMIT_JOB_SCHED .*": "servers refuse SUBMIT_JOB_SCHED",
    rf"\w+ <ERROR {_CONTENTS} .*": "the codes and texts of errors differ",
    rf"server >({_STATE}|PRE_SLEEP) duplicated .*": "a repetition changes nothing",
    rf"server >({_STATE}) delayed .*": "nothing shows the change before the next packet",
    r"server [<>]\w+ leaked (tenth|large)": "leaks depend neither on numbers nor on sizes",
    rf"server >CAN_DO_TIMEOUT {_CONTENTS} .*": "a time limit shows only after its end",
    r"server >WORK_EXCEPTION (duplicated|leaked) .*": "servers may ignore it after the job's end",
    rf"\w+ [<>]OPTION_RE[QS] {_CONTENTS} .*": "there is only one option",
    rf"worker <(JOB_ASSIGN\w*|ECHO_RES) {_CONTENTS} .*": "results are the worker's own",
    rf"worker >(WORK_\w+|ECHO_REQ) {_CONTENTS} .*": "results are the worker's own",
    rf"worker >({_UPDATES}) .*": "updates are the worker's own",
    r"worker >CAN_DO .*": "the functions are the worker's own",
    r"worker (>GRAB_JOB|<JOB_ASSIGN) .*": "a worker can use GRAB_JOB_UNIQ instead",
    r"worker <ERROR \S+ (second|tenth)": "a worker can take an ERROR for the answer to its grab",
    r"worker [<>]ECHO_RE[QS] .*": "a worker need not ping",
    r"\w+ [<>](WORK_FAIL|ERROR) \S+ large": "it carries no data",
    r"client <(WORK_FAIL|WORK_EXCEPTION|ERROR) \S+ (second|tenth)": "it only reports a failure",
    r"worker >WORK_\w+ delayed .*": "a worker sends a GRAB_JOB right after it",
    r"(worker|client) [<>]\w+ leaked .*": "a worker or client has only one connection",
    r"worker (<(NOOP|ERROR|ECHO_RES)|>\w+) duplicated .*": "a repetition changes nothing",
    rf"client <({_UPDATES}) .*": "clients need not show updates",
    r"client <(ECHO|OPTION)_RES .*": "clients need not check the answer",
    r"client >OPTION_REQ .*": "clients need not request the option",
    r"client <JOB_CREATED delayed .*": "a client acts only on the packet after it",
    r"client <(ERROR|WORK_(COMPLETE|FAIL|EXCEPTION)) duplicated .*": "the client has ended by then",
    rf"client <WORK_(FAIL|EXCEPTION) {_CONTENTS} .*": "clients need not show reasons",
}


# The cases that notice faults.


def _spy(name: str, seen: set[tuple[str, str]]) -> Lie:
    """Return a lie that changes nothing, and notes the extents of the packets that pass."""
    lie = Lie(name, lambda args: b"")

    def change(args: list[bytes]) -> bytes:
        unit = args[0] if name[1:] == "TEXT" else packet(name, *args)
        count = lie.seen[lie.connection]
        seen.update(
            (name, extent)
            for extent, (first, _, least) in EXTENTS.items()
            if count > first and len(unit) >= least
        )
        return unit

    lie.change = change
    return lie


def candidates(side: str) -> dict[tuple[str, str], list[str]]:
    """Return the quick cases of a side by the names and the extents of the packets in them.

    Cases about sizes come last, because they take the longest.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    quick = [case.id for case in SUITES[side].cases.values() if not case.slow]
    for case in sorted(quick, key=lambda case: "size/" in case):
        seen: set[tuple[str, str]] = set()
        spies = [_spy(name, seen) for way in "<>" for name in _names(way)]
        assert not outcome_with(side, case, spies, _TIMEOUT).is_bad, case
        for key in sorted(seen):
            found[key].append(case)
    return found


def notices(fault: Fault, case: str) -> bool:
    """Return whether a case fails because of a fault."""
    return outcome_with(fault.side, case, fault.lies(), _TIMEOUT).verdict is Verdict.FAIL


def search(side: str) -> Iterator[tuple[Fault, str]]:
    """Yield the faults of a side, each with the name of a case that notices it, or "".

    Types of packets that occur in no case are left out: a judged program need not send them.
    """
    by_packet = candidates(side)
    for fault in all_faults(side):
        if (fault.name, "each") not in by_packet:
            continue
        cases = by_packet.get((fault.name, fault.extent), [])
        if excuse(fault):
            # An excused fault needs no case. Large cases would take minutes.
            cases = [case for case in cases if "size/" not in case]
        yield fault, next((case for case in cases if notices(fault, case)), "")


def excuse(fault: Fault) -> str:
    """Return the reason why no case can notice a fault, or an empty text."""
    return next((why for pattern, why in EXCUSES.items() if re.fullmatch(pattern, str(fault))), "")


# The table.


def table(side: str, results: Iterable[tuple[Fault, str]]) -> Iterator[str]:
    """Yield the lines of the table of a side for the documentation.

    Args:
        side: The side.
        results: The results of `search`.
    """
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    reasons: dict[str, str] = {}
    for fault, case in results:
        row = cells[fault.name]
        if case:
            row.setdefault(fault.kind, "\u2713")
        else:
            letter = chr(ord("a") + len(reasons))
            row[fault.kind] = reasons.setdefault(excuse(fault) or "hole", letter)
    yield f"| {side} | {' | '.join(kind.replace('-', ' ') for kind in KINDS)} |"
    yield f"| --- |{' --- |' * len(KINDS)}"
    for name, row in cells.items():
        way = "to it" if (name[0] == ">") == (side == "server") else "from it"
        yield f"| {name[1:]} {way} | {' | '.join(row.get(kind, '') for kind in KINDS)} |"
    yield ""
    yield from (f"* {letter}: {why}" for why, letter in reasons.items())


def main() -> None:
    """Print the tables or the holes, or write the tables into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.faults", description=__doc__)
    parser.add_argument("--holes", action="store_true", help="print only the unnoticed faults")
    parser.add_argument("--write", action="store_true", help="write the tables into the page")
    options = parser.parse_args()
    results = {side: list(search(side)) for side in SUITES}
    if options.holes:
        for fault, case in itertools.chain(*results.values()):
            if not (case or excuse(fault)):
                print(fault)
        return
    text = "\n\n".join("\n".join(table(side, some)) for side, some in results.items())
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        parts = re.fullmatch(f"(?s)(.*{_MARK}\n\n).*?(\n\n<!-- end -->.*)", page)
        assert parts
        PAGE.write_text(parts[1] + text + parts[2], encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()

"""docs/reference/protocol.md lists the core's packets, and shows and names all recordings.

To rewrite the table and the exchanges, run

    PYTHONPATH=. python tests/test_protocol_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gearman_proto import PACKETS, Role
from tests.recordings import FOLDERS, VECTORS

if TYPE_CHECKING:
    from gearman_proto import PacketType

PAGE = Path(__file__).parent.parent / "docs/reference/protocol.md"
PACKET_TABLE = re.compile(r"(?<=<!-- packets -->\n).*?(?=<!-- end -->)", re.DOTALL)
ANSWER_TABLE = re.compile(r"(?<=<!-- answers -->\n).*?(?=<!-- end -->)", re.DOTALL)
#: An exchange, optionally from an element on, or a single element as it is in the file.
SHOWN = re.compile(r"<!-- (exchange|element): (\w+) ?(\d*) -->\n```\n(.*?)```\n", re.DOTALL)
KEY = re.compile(r"\bV(\d\d)(/2\.0)?\b")
WHO = {
    Role.CLIENT: "C",
    Role.WORKER: "W",
    Role.SERVER: "S",
    Role.CLIENT | Role.WORKER: "any",
}


def way_of(packet: PacketType) -> str:
    if Role.SERVER in packet.sender and Role.SERVER in packet.receiver:
        return "W→S→C"
    return f"{WHO[packet.sender]}→{WHO[packet.receiver]}"


def row_of(packet: PacketType) -> str:
    arguments = [name.replace("_", " ") for name in packet.args]
    if packet.opaque:
        arguments[-1] = f"**{arguments[-1]}**"
    if packet.optional:
        arguments[-1] += " (may be missing)"
    cells = [packet.number, packet.name, way_of(packet), ", ".join(arguments)]
    return f"| {' | '.join(map(str, cells))} |\n".replace("  ", " ")


def table() -> str:
    head = "| Type | Name | Way | Arguments |\n| --- | --- | --- | --- |\n"
    return "\n" + head + "".join(map(row_of, PACKETS)) + "\n"


def answers() -> str:
    requests: dict[tuple[str, ...], list[str]] = {}
    for packet in PACKETS:
        if packet.answers:
            requests.setdefault(packet.answers, []).append(packet.name)
    rows = [f"| {', '.join(names)} | {' or '.join(each)} |\n" for each, names in requests.items()]
    return "\n| Request | Answer |\n| --- | --- |\n" + "".join(rows) + "\n"


def shown(match: re.Match[str]) -> str:
    kind, name, number, _ = match.groups()
    if kind == "element":
        path = FOLDERS[""] / f"{name}.json"
        elements = json.loads(path.read_text(encoding="utf-8"))["exchange"]
        text = json.dumps(elements[int(number)], indent=1) + "\n"
    else:
        width = max(len(element.conn) for element in VECTORS[name].exchange)
        text = "".join(
            f"{element.conn:{width}} {'<' if element.sender == 'server' else '>'} "
            f"{'closes' if element.closes else element.decoded}\n"
            for element in VECTORS[name].exchange[int(number or 0) :]
        )
    return f"<!-- {kind}: {name}{' ' * bool(number)}{number} -->\n```\n{text}```\n"


def redrawn(page: str) -> str:
    page = PACKET_TABLE.sub(lambda _: table(), page)
    page = ANSWER_TABLE.sub(lambda _: answers(), page)
    return SHOWN.sub(shown, page)


def test_page_matches_packets_and_recordings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert redrawn(page) == page, "run python tests/test_protocol_page.py"
    assert len(SHOWN.findall(page)) == page.count("```") // 2


def test_page_names_exactly_the_recordings() -> None:
    named = set()
    for number, is_new in KEY.findall(PAGE.read_text(encoding="utf-8")):
        named.add(("2.0/" if is_new or int(number) > 50 else "") + number)
    assert sorted(named) == sorted(name.partition("_")[0] for name in VECTORS)


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

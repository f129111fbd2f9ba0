"""The metrics of servers, without servers."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto import FunctionStatus, PriorityStatus
from gearman_sync.cli.metrics import Answer, exposition

BUSY = Answer(
    "1.1.21",
    [FunctionStatus("resize", 6, 2, 3), FunctionStatus("mail", 0, 0, 0)],
    [PriorityStatus("resize", 1, 3, 0, 3), PriorityStatus("too new", 1, 1, 1, 1)],
)

TEXT = """\
# HELP gearman_up 1 if the server has answered, otherwise 0.
# TYPE gearman_up gauge
gearman_up{server="a:1"} 1
gearman_up{server="b:1"} 0
# HELP gearman_version_info The version of the server.
# TYPE gearman_version_info gauge
gearman_version_info{server="a:1",version="1.1.21"} 1
# HELP gearman_jobs Jobs that wait or run.
# TYPE gearman_jobs gauge
gearman_jobs{server="a:1",function="mail"} 0
gearman_jobs{server="a:1",function="resize"} 6
# HELP gearman_jobs_running Jobs that run.
# TYPE gearman_jobs_running gauge
gearman_jobs_running{server="a:1",function="mail"} 0
gearman_jobs_running{server="a:1",function="resize"} 2
# HELP gearman_jobs_waiting Jobs that wait for a worker.
# TYPE gearman_jobs_waiting gauge
gearman_jobs_waiting{server="a:1",function="mail"} 0
gearman_jobs_waiting{server="a:1",function="resize"} 4
# HELP gearman_jobs_waiting_by_priority Jobs that wait for a worker, by priority.
# TYPE gearman_jobs_waiting_by_priority gauge
gearman_jobs_waiting_by_priority{server="a:1",function="resize",priority="high"} 1
gearman_jobs_waiting_by_priority{server="a:1",function="resize",priority="normal"} 3
gearman_jobs_waiting_by_priority{server="a:1",function="resize",priority="low"} 0
# HELP gearman_workers Workers that have registered the function.
# TYPE gearman_workers gauge
gearman_workers{server="a:1",function="mail"} 0
gearman_workers{server="a:1",function="resize"} 3
# HELP gearman_functions_omitted Functions of the server that have no samples, because it has too many.
# TYPE gearman_functions_omitted gauge
gearman_functions_omitted{server="a:1"} 0
"""  # noqa: E501 - the text has long lines


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Parse `text` as Prometheus' own library does."""
    parser: Any = pytest.importorskip("prometheus_client.parser")
    families = parser.text_string_to_metric_families(text)
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def test_metrics_of_a_busy_server_and_one_that_is_down() -> None:
    assert exposition({"a:1": BUSY, "b:1": None}) == TEXT
    up = [(labels, value) for name, labels, value in samples(TEXT) if name == "gearman_up"]
    assert up == [({"server": "a:1"}, 1), ({"server": "b:1"}, 0)]


def test_functions_beyond_the_limit_are_omitted_the_idle_ones_first() -> None:
    functions = [
        FunctionStatus("a", 0, 0, 0),
        FunctionStatus("b", 0, 0, 1),
        FunctionStatus("c", 1, 0, 0),
        FunctionStatus("d", 0, 0, 1),
    ]
    answer = Answer("v1.130.1", functions)
    for limit, names in ((0, ""), (1, "c"), (2, "bc"), (3, "bcd"), (4, "abcd"), (5, "abcd")):
        text = exposition({"s:1": answer}, limit)
        shown = [line.split('"')[3] for line in text.splitlines() if line[:13] == "gearman_jobs{"]
        assert "".join(shown) == names
        assert f'gearman_functions_omitted{{server="s:1"}} {4 - len(names)}\n' in text


NAMES = st.text(string.ascii_letters + '\\"\n\r\0{},= \u2028\udcff', max_size=8)


@given(st.lists(st.tuples(NAMES, st.integers(0, 10**20), st.integers(0, 10**20))), NAMES)
def test_any_names_make_valid_text(rows: list[tuple[str, int, int]], version: str) -> None:
    """Prometheus rejects all samples of a target if two have the same labels."""
    functions = [FunctionStatus(name, queued, running, 1) for name, queued, running in rows]
    text = exposition({"s:1": Answer(version, functions)})
    assert text.encode()
    assert all(line.isprintable() for line in text.split("\n"))
    found = samples(text)
    assert len({(name, *labels.items()) for name, labels, _ in found}) == len(found)
    jobs = sum(value for name, _, value in found if name == "gearman_workers")
    assert jobs == len(rows)


def test_long_texts_are_cut() -> None:
    answer = Answer("v" * 10_000, [FunctionStatus("f" * 10_000, 1, 0, 0)] * 2)
    text = exposition({"s:1": answer})
    assert max(map(len, text.splitlines())) < 700
    assert text.count("gearman_jobs{") == 1

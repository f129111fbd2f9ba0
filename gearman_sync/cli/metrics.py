"""The metrics of servers in Prometheus' text format. This module does no I/O.

The names are those of https://github.com/bakins/gearman-exporter, so that its dashboards and alerts
work. Each metric also has the label ``server``. Servers choose the texts, so their number and their
length are limited, and a text that occurs twice makes one sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gearman_proto import FunctionStatus, PriorityStatus

#: Maximum number of functions of each server, unless the user chooses another one.
MAX_FUNCTIONS: Final = 1000
# Maximum length of a label's value in characters. gearmand accepts function names of 512 bytes.
_MAX_LENGTH: Final = 512

_PRIORITIES: Final = ("high", "normal", "low")
_HELP: Final = {
    "up": "1 if the server has answered, otherwise 0.",
    "version_info": "The version of the server.",
    "jobs": "Jobs that wait or run.",
    "jobs_running": "Jobs that run.",
    "jobs_waiting": "Jobs that wait for a worker.",
    "jobs_waiting_by_priority": "Jobs that wait for a worker, by priority.",
    "workers": "Workers that have registered the function.",
    "functions_omitted": "Functions of the server that have no samples, because it has too many.",
}


@dataclass(frozen=True)
class Answer:
    """The answer of a server."""

    version: str
    functions: Sequence[FunctionStatus]
    #: None if the server does not know the command. Perl's server does not.
    priorities: Sequence[PriorityStatus] | None = None


class _Samples:
    """The values of all metrics by labels."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {name: {} for name in _HELP}

    def add(self, metric: str, value: int, **labels: str) -> None:
        """Add `value` to the sample with these labels."""
        text = ",".join(f'{name}="{_escaped(label)}"' for name, label in labels.items())
        samples = self._values[metric]
        samples[text] = samples.get(text, 0) + value

    def text(self) -> str:
        lines = []
        for metric, samples in self._values.items():
            name = f"gearman_{metric}"
            if samples:
                lines += [f"# HELP {name} {_HELP[metric]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{{{labels}}} {value}" for labels, value in samples.items()]
        return "".join(f"{line}\n" for line in lines)


def exposition(answers: Mapping[str, Answer | None], max_functions: int = MAX_FUNCTIONS) -> str:
    """Return the metrics of servers as text.

    Args:
        answers: The answer of each server, by address. None for a server that has not answered.
        max_functions: Maximum number of functions of each server. Functions with jobs take
            precedence, then those with workers.

    Returns:
        Lines of printable characters.
    """
    samples = _Samples()
    for server, answer in answers.items():
        samples.add("up", int(answer is not None), server=server)
        if answer is None:
            continue
        samples.add("version_info", 1, server=server, version=answer.version)
        reported = _most_important(answer.functions, max_functions)
        for each in reported:
            labels = {"server": server, "function": each.task}
            samples.add("jobs", each.queued, **labels)
            samples.add("jobs_running", each.running, **labels)
            samples.add("jobs_waiting", max(each.queued - each.running, 0), **labels)
            samples.add("workers", each.workers, **labels)
        names = {each.task for each in reported}
        for row in answer.priorities or ():
            # A function might be new since the other list.
            for priority in _PRIORITIES if row.task in names else ():
                samples.add(
                    "jobs_waiting_by_priority",
                    getattr(row, priority),
                    server=server,
                    function=row.task,
                    priority=priority,
                )
        omitted = len(answer.functions) - len(reported)
        samples.add("functions_omitted", omitted, server=server)
    return samples.text()


def _most_important(functions: Iterable[FunctionStatus], count: int) -> list[FunctionStatus]:
    """Return `count` of the functions, sorted by name."""
    order = sorted(functions, key=lambda each: (not each.queued, not each.workers, each.task))
    return sorted(order[:count], key=lambda each: each.task)


def _escaped(label: str) -> str:
    return printable(label, _MAX_LENGTH).replace("\\", r"\\").replace('"', r"\"")

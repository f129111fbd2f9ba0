"""The application of the rules to all files of a program."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, Final

from ._checks import Checker
from ._names import ALL_MODULES
from ._rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._kinds import Exports
    from ._sources import Source

#: Steps to follow in a chain: a client, its request, the result, a name for the result.
_ROUNDS: Final = 4
_IMPORTS: Final = re.compile(
    rf"^[ \t]*(from|import( [\w., ]+,)?)[ \t]+({'|'.join(ALL_MODULES)})\b(?! *=)", re.MULTILINE
)


class Program:
    """All files of a program, with their findings."""

    def __init__(self, sources: Iterable[Source]) -> None:
        #: The libraries that each file uses, by file.
        self.users: dict[str, set[str]] = {}
        self.findings: list[Finding] = []
        #: A line for each file whose nesting is too deep to parse.
        self.problems: list[str] = []
        words = {source: set(re.findall(r"\w+", source.text)) for source in sources}
        self.files = len(words)
        #: True if the program already calls install_as_gearman().
        self.is_installed = any("install_as_gearman" in each for each in words.values())
        self._is_encoded = any("data_encoder" in each for each in words.values())
        self._exports: Exports = {}
        self._checkers: dict[Source, Checker] = {}
        # Parse only files that contain the name of a library, or a name that a parsed file exports.
        wanted = set(ALL_MODULES)
        while found := [each for each in words if words[each] & wanted]:
            for source in found:
                words[source] = set()
                self._parse(source)
            for _ in range(_ROUNDS):
                for source in list(self._checkers):
                    self._run(source, learn=True)
            wanted |= {name for _, name in self._exports}
        for source in list(self._checkers):
            self._run(source)
        self.findings.sort()

    def _parse(self, source: Source) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Invalid escapes such as "\\d", for example.
                tree = ast.parse(source.text)
            self._checkers[source] = Checker(source, tree, is_encoded=self._is_encoded)
        except (SyntaxError, ValueError) as error:  # ValueError: the file contains a NUL.
            if _IMPORTS.search(source.text):
                self.users[str(source.path)] = set()
                line = getattr(error, "lineno", 1) or 1
                self.findings.append(Finding(str(source.path), line, "python-2", error.args[0]))
        except (RecursionError, MemoryError):
            self.problems.append(f"{source.path}: this is nested too deeply to be read")

    def _run(self, source: Source, *, learn: bool = False) -> None:
        checker = self._checkers[source]
        try:
            if learn:
                self._exports |= checker.learn(self._exports)
            else:
                self.findings += checker.run()
        except RecursionError:
            del self._checkers[source]
            self.problems.append(f"{source.path}: this is nested too deeply to be read")
        if checker.modules:
            self.users[str(source.path)] = checker.modules

"""Applies the rules to all files of a program."""

from __future__ import annotations

import ast
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from . import _others as others
from . import _python_gearman as python_gearman
from ._checks import Checker, class_kind
from ._kinds import Guess, Knowledge, family_of, is_of_gearman
from ._rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._kinds import Kind
    from ._sources import Source

#: How often a file is read: what is learned the first time is known the second time, and what is
#: learned then the third time.
_TIMES: Final = 3
#: Calls within calls. Python has 1,000, and nobody writes what needs more than this.
_DEPTH: Final = 10_000
#: Names of Python 2 that are no syntax.
_OLD_BUILTINS: Final = frozenset({"basestring", "raw_input", "unichr", "unicode", "xrange"})
#: Methods of Python 2, and how many arguments they take.
_OLD_METHODS: Final = {"has_key": 1, "iteritems": 0, "iterkeys": 0, "itervalues": 0}


class Program:
    """All files of a program, and what is different in them."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Look at the files."""
        #: The files that use a library, with the libraries' modules.
        self.users: dict[str, set[str]] = {}
        self.findings: list[Finding] = []
        #: What could not be looked at.
        self.problems: list[str] = []
        every = list(sources)
        self.files = len(every)
        #: Whether the program calls install_as_gearman() already.
        self.is_installed = any("install_as_gearman(" in source.text for source in every)
        parsed: list[Source] = []
        knowledge = Knowledge()
        # The name of a library is in each file that imports it. The classes that are made there of
        # the library's are looked for in the others.
        names, others = {"gear"}, every
        while names:
            wanted = re.compile("|".join(map(re.escape, sorted(names))))
            found = [source for source in others if wanted.search(source.text)]
            others = [source for source in others if not wanted.search(source.text)]
            parsed += [source for source in found if self._parse(source)]
            before = set(knowledge.classes)
            with _deeper():
                self._learn(parsed, knowledge)
            names = {name for _, name in knowledge.classes.keys() - before}
        for source in parsed:
            try:
                with _deeper():
                    self._check(source, knowledge)
            except RecursionError:
                self._too_deep(source)
        self.findings.sort()

    def _parse(self, source: Source) -> bool:
        try:
            source.parse()
        except (RecursionError, MemoryError):
            self._too_deep(source)
            return False
        if source.tree is None and source.imports_library:
            line, error = source.error
            self.users[str(source.path)] = set()
            self.findings.append(Finding(str(source.path), line, "python-2", error))
        return source.tree is not None

    def _too_deep(self, source: Source) -> None:
        self.problems.append(f"{source.path}: this is nested too deeply to be read")

    def _learn(self, sources: list[Source], knowledge: Knowledge) -> None:
        """Find the classes of all files that come from a library's."""
        before: dict[tuple[str, str], Kind] | None = None
        while knowledge.classes != before:
            before = dict(knowledge.classes)
            for source in list(sources):
                try:
                    self._learn_from(source, knowledge)
                except RecursionError:
                    sources.remove(source)
                    self._too_deep(source)

    def _learn_from(self, source: Source, knowledge: Knowledge) -> None:
        assert source.tree is not None
        guess = Guess(knowledge, "gearman")
        path = source.path
        module = path.parent.name if path.name == "__init__.py" else path.stem
        for node in _statements(source.tree):
            if isinstance(node, ast.Import):
                guess.bind_import(node)
            elif isinstance(node, ast.ImportFrom):
                guess.bind_from(node)
                _export(knowledge, guess, module, node)
            elif isinstance(node, ast.ClassDef):
                kind = class_kind(guess, node)
                guess.scope.names[node.name] = kind
                if kind is not None:
                    knowledge.classes[module, node.name] = kind
            knowledge.texts |= "data_encoder" in _assigned(node)

    def _check(self, source: Source, program: Knowledge) -> None:
        assert source.tree is not None
        modules = family_of(source.tree)
        if not modules and not _uses(source.tree, program):
            return
        name = str(source.path)
        self.users[name] = modules
        families: list[str] = [each for each in ("gear", "aiogear") if each in modules]
        if is_of_gearman(modules) or not modules:
            families.append("gearman")
        for family in families:
            known = Knowledge(program.classes, texts=program.texts)
            for _ in range(_TIMES):
                check = python_gearman.check if family == "gearman" else others.check
                checker = Checker(source, family, modules, known, check)
                checker.run()
                known = checker.learned
            self.findings += checker.findings
        self._find_python_2(source)

    def _find_python_2(self, source: Source) -> None:
        assert source.tree is not None
        nodes = list(ast.walk(source.tree))
        names = [each for each in nodes if isinstance(each, ast.Name)]
        bound = {each.id for each in names if not isinstance(each.ctx, ast.Load)}
        bound |= {each.name for each in nodes if isinstance(each, ast.FunctionDef | ast.ClassDef)}
        bound |= {each.arg for each in nodes if isinstance(each, ast.arg)}
        bound |= {each.asname or each.name for each in nodes if isinstance(each, ast.alias)}
        old = {(each.lineno, each.id) for each in names if each.id in _OLD_BUILTINS - bound}
        old |= {
            (each.lineno, f".{each.func.attr}()")
            for each in nodes
            if isinstance(each, ast.Call)
            and isinstance(each.func, ast.Attribute)
            and _OLD_METHODS.get(each.func.attr, -1) == len(each.args)
        }
        if old:
            line, code = min(old)
            self.findings.append(Finding(str(source.path), line, "python-2", code))


@contextmanager
def _deeper() -> Iterator[None]:
    """Let long chains of calls be followed to their end; a level of them is several calls here.

    These are calls of Python by Python, which need no more of the stack. The parser would: it is
    not called in here.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """All nodes, in the order of their lines."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return sorted(nodes, key=lambda node: node.lineno)


def _assigned(node: ast.AST) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {getattr(each, "id", getattr(each, "attr", "")) for each in targets}


def _export(knowledge: Knowledge, guess: Guess, module: str, node: ast.ImportFrom) -> None:
    """What a file imports others may import from it."""
    for alias in node.names:
        name = alias.asname or alias.name
        kind = guess.scope.names.get(name)
        if kind is not None and kind.what == "class" and kind.own:
            knowledge.classes[module, name] = kind


def _uses(tree: ast.Module, program: Knowledge) -> bool:
    """Whether a file imports a class that comes from a library's."""
    return any(
        ((node.module or "").rpartition(".")[2], alias.name) in program.classes
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )

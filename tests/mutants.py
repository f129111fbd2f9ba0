"""Mutation testing: the share of small faults in the packages that the tests notice.

    python -m tests.mutants --seed 22 --count 400 --jobs 2 --json now.json --compare before.json

A mutant is a module with one change to its syntax tree. This program draws a sample of all mutants
and tries each in a copy of the checkout. A mutant is killed if a test of its layer that passes
without the change hangs or fails twice. The program first records which tests execute which lines.
Then it runs each mutant only with the tests that execute its line, fastest first.

The sample depends on the seed, the layer, the function and the text of the changed line. So a
mutant stays in the sample when other code changes, or when its code moves to another module.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import copy
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # Tests by module and line, and the seconds of each test.
    Recorded = tuple[dict[str, dict[int, list[str]]], dict[str, float]]
    # The layer of a mutant, its change, and the test that kills it.
    Result = dict[str, str | None]

ROOT: Final = Path(__file__).parents[1]
# The modules of each layer, and the tests that judge them. The first layer that lists a module owns
# it.
LAYERS: Final = {
    "drivers": (
        ("gearman_proto/engines/driver.py", "gearman_sync/_driver.py", "gearman_anyio/_driver.py"),
        (
            "tests/engines/test_driving.py",
            *("tests/contract", "tests/drivers", "tests/sync", "tests/anyio"),
        ),
    ),
    "engines": (("gearman_proto/engines",), ("tests/engines",)),
    "jobs": (("gearman_proto/jobs",), ("tests/jobs",)),
    "wire": (("gearman_proto/wire",), ("tests/wire",)),
}
# Seconds of tests for a mutant.
_LIMIT: Final = 90.0
# Address space of a test process in bytes, so that a runaway mutant cannot exhaust the machine.
_MEMORY: Final = 6 * 1024**3
# Files beside a copy of the checkout: pytest's instructions, its measurement and its output.
_MODULES, _CHOSEN, _RECORDED, _LOG = map(Path, ("../modules", "../chosen", "../recorded", "../log"))

# Operators, and the ones that replace them.
_OPERATORS: Final = """
    Lt: LtE GtE, LtE: Lt Gt, Gt: GtE LtE, GtE: Gt Lt, Eq: NotEq, NotEq: Eq, Is: IsNot, IsNot: Is,
    In: NotIn, NotIn: In, And: Or, Or: And, Add: Sub, Sub: Add, Mult: FloorDiv, FloorDiv: Mult,
    Div: Mult, Mod: Mult, BitAnd: BitOr, BitOr: BitAnd, LShift: RShift, RShift: LShift
"""
_OTHERS: Final = {
    getattr(ast, name.strip()): [getattr(ast, other)() for other in others.split()]
    for name, _, others in (row.partition(":") for row in _OPERATORS.split(","))
}


class Mutant(NamedTuple):
    """One change to a module. `span` is in bytes. A test that executes any of `lines` can detect
    it.
    """

    layer: str
    path: str
    lines: range
    span: tuple[int, int]
    before: str
    after: str
    key: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source of the module."""
        return source[: self.span[0]] + self.after.encode() + source[self.span[1] :]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path}:{self.lines[-1]}  {before}  ->  {after}"


def find_mutants(layer: str, path: str, source: bytes) -> Iterator[Mutant]:
    """Yield the mutants of one module."""
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]

    def walk(node: Any, outer: Any, names: tuple[str, ...], is_test: bool) -> Iterator[Mutant]:
        statement = node if isinstance(node, ast.stmt) else outer
        for after in _changes(node, names, is_test):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            before = source[start:end].decode()
            line = lines[node.lineno - 1]
            column = node.col_offset - (len(line) - len(line.lstrip()))
            # Keep the numbers of the following lines.
            text = after + "\n" * before.count("\n")
            text = f"({text})" if isinstance(node, ast.expr) else text
            where = f"{layer} {'.'.join(names)} {line.decode().strip()} {column}"
            last = node.lineno if node is statement else node.end_lineno
            at = range(statement.lineno, last + 1)
            key = f"{where} {before} {text.strip()}"
            yield Mutant(layer, path, at, (start, end), before, text, key)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names = (*names, node.name)
        tests = getattr(node, "ifs", [getattr(node, "test", None)])
        for child in _children(node):
            yield from walk(child, statement, names, child in tests)

    return walk(ast.parse(source), None, (), False)


def _children(node: Any) -> Iterable[Any]:
    """Return the children of a node that can be mutated.

    Annotations, assertions, texts, messages, `__repr__` and code for type checkers stay as is.
    """
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.Delete():
            return ()
        case ast.Call() if _is_message(node):
            return ()
        case ast.ClassDef():
            return (*node.keywords, *node.body)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            if node.name in ("__repr__", "__str__") or "overload" in map(
                ast.unparse, node.decorator_list
            ):
                return ()
            return (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body)
        case ast.AnnAssign():
            return filter(None, [node.value])
        case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
            return node.orelse
    return ast.iter_child_nodes(node)


def _changes(node: Any, names: tuple[str, ...], is_test: bool) -> Iterator[str]:
    """Yield the possible replacements of a node. `is_test` is True for a condition."""
    # Other operators negate comparisons and `not`.
    if is_test and not isinstance(node, (ast.Compare, ast.UnaryOp, ast.Constant)):
        yield f"not ({ast.unparse(node)})"
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in _OTHERS[type(op)]:
                    yield _with(node, ops=[*ops[:at], other, *ops[at + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            if not isinstance(operand, ast.Constant):
                yield ast.unparse(operand)
        case ast.BinOp(op=op, left=left, right=right):
            # At module level, `|` joins types.
            is_type = isinstance(op, ast.BitOr) and not names
            if not is_type and not _is_text(left) and not _is_text(right):
                yield from (_with(node, op=other) for other in _OTHERS.get(type(op), ()))
        case ast.BoolOp(op=op):
            yield from (_with(node, op=other) for other in _OTHERS[type(op)])
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield from (str(value + 1), str(value - 1))
        case ast.Constant(value=float(value)):
            yield str(value + 1)
        case ast.Return(value=None) | ast.Delete():
            yield "pass"
        case ast.Return(value=value):
            if not isinstance(value, ast.Constant) or value.value not in (None, False):
                yield "return None"
        case ast.Break():
            yield "continue"
        case ast.Continue():
            yield "break"
        case ast.Raise(exc=exc):
            if exc is None or "NotImplementedError" not in ast.unparse(exc):
                yield "pass"
        case ast.Expr(value=(ast.Call() as call) | ast.Await(value=ast.Call() as call)):
            if not _is_message(call):
                yield "pass"
        case ast.AugAssign(op=op, value=value):
            yield "pass"
            if not _is_text(value):
                yield from (_with(node, op=other) for other in _OTHERS.get(type(op), ()))
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            # Nearly any test fails without a local variable or an attribute from `__init__`.
            is_state = all(isinstance(each, (ast.Attribute, ast.Subscript)) for each in targets)
            if is_state and names and names[-1] not in ("__init__", "__new__"):
                yield "pass"


def _with(node: Any, **fields: Any) -> str:
    changed = copy.copy(node)
    vars(changed).update(fields)
    return ast.unparse(changed)


def _is_text(node: ast.expr) -> bool:
    is_constant = isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    return is_constant or isinstance(node, ast.JoinedStr)


def _is_message(call: ast.Call) -> bool:
    """Return True if a call logs or warns."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    name = ast.unparse(owner).rpartition(".")[2]
    return name.lstrip("_") in ("log", "logger", "logging", "warnings")


def find_all(root: Path) -> list[Mutant]:
    """Return all mutants of all layers of the tree in `root`."""
    owners: dict[str, str] = {}
    for layer, (places, _) in LAYERS.items():
        for place in (root / each for each in places):
            for module in sorted(place.rglob("*.py")) or [place]:
                owners.setdefault(str(module.relative_to(root)), layer)
    found = (find_mutants(owners[path], path, (root / path).read_bytes()) for path in owners)
    return list(itertools.chain.from_iterable(found))


def sample(mutants: Iterable[Mutant], root: Path, seed: int, count: int) -> dict[str, Mutant]:
    """Return the first `count` mutants in the order of their hashes, which are the keys."""
    repeated: Counter[str] = Counter()
    hashed: dict[str, Mutant] = {}
    for mutant in mutants:
        name = f"{seed} {repeated[mutant.key]} {mutant.key}"
        hashed[hashlib.sha256(name.encode()).hexdigest()[:16]] = mutant
        repeated[mutant.key] += 1
    chosen: dict[str, Mutant] = {}
    for key in sorted(hashed):
        # Some changes are syntax errors.
        with contextlib.suppress(SyntaxError):
            mutant = hashed[key]
            compile(mutant.apply((root / mutant.path).read_bytes()), mutant.path, "exec")
            chosen[key] = mutant
        if len(chosen) == count:
            break
    return chosen


# The rest runs in copies of the checkout. There, this module is a plugin of pytest.


def pytest_configure(config: pytest.Config) -> None:
    """Limit the memory, and register a plugin."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    config.pluginmanager.register(Chosen() if _CHOSEN.exists() else Recorder())


class Recorder:
    """A plugin that records which tests execute which lines, and their durations."""

    def __init__(self) -> None:
        modules = json.loads(_MODULES.read_text())
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=modules)
        self._seconds: Counter[str] = Counter()
        self._failed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        # If measurement started earlier, tests/conftest.py would measure as well.
        self._coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._coverage.switch_context(nodeid)
        # A cached function executes its lines in each test that calls it.
        for name in [each for each in sys.modules if each.startswith("gearman_proto.")]:
            for cached in vars(sys.modules[name]).values():
                if isinstance(cached, functools._lru_cache_wrapper) and ".testing." not in name:
                    cached.cache_clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration  # type: ignore[assignment]
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {os.path.relpath(m): data.contexts_by_lineno(m) for m in data.measured_files()}
        seconds = {test: self._seconds[test] for test in self._seconds.keys() - self._failed}
        _RECORDED.write_bytes(pickle.dumps((lines, seconds)))


class Chosen:
    """A plugin that runs the chosen tests in their order."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        places = {test: place for place, test in enumerate(json.loads(_CHOSEN.read_text()))}
        chosen = (item for item in items if item.nodeid in places)
        items[:] = sorted(chosen, key=lambda item: places[item.nodeid])


def _begin(scratch: str) -> None:
    """Copy the checkout, and go there."""
    directory = tempfile.mkdtemp(dir=scratch)
    tree = f"{directory}/tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    os.chdir(tree)
    # The copy keeps its bytecode.
    os.environ.update(PYTHONPATH=tree, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX="")
    options = "-p tests.mutants -p no:cacheprovider -v -m 'not slow'"
    # A test that hangs ends pytest.
    options += " -o faulthandler_timeout=45 -o faulthandler_exit_on_timeout=true"
    os.environ.update(TMPDIR=directory, PYTEST_ADDOPTS=options)


def _record(layer: str) -> Recorded:
    """Return a layer's tests by line, and the durations of those that pass."""
    places, tests = LAYERS[layer]
    modules = [os.path.abspath(place) + ("" if "." in place else "/*") for place in places]
    _MODULES.write_text(json.dumps(modules))
    _CHOSEN.unlink(missing_ok=True)
    _run_pytest(*tests)
    lines, seconds = pickle.loads(_RECORDED.read_bytes())
    if not seconds:
        log = _LOG.read_text()
        raise RuntimeError(f"no test of the layer {layer} passes without a mutant:\n{log}")
    return lines, seconds


def _find_killer(mutant: Mutant, tests: list[str]) -> str | None:
    """Return the test that kills a mutant."""
    module = Path(mutant.path)
    original = module.read_bytes()
    _write(module, mutant.apply(original))
    # A test that fails only once, under load, has not detected the mutant.
    while (killer := _find_failure(tests)) in tests and not _find_failure([killer]):
        tests = [test for test in tests if test != killer]
    _write(module, original)
    return killer


def _find_failure(tests: list[str]) -> str | None:
    """Return the first test that fails or hangs."""
    _CHOSEN.write_text(json.dumps(tests))
    files = sorted({test.partition("::")[0] for test in tests})
    if _run_pytest("-x", *files, timeout=2 * _LIMIT) in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    log = _LOG.read_text()
    place, last = max((log.rfind(f"\n{test} "), test) for test in tests)
    return last if place >= 0 else "an import"


def _run_pytest(*arguments: str, timeout: float | None = None) -> int | None:
    """Run pytest. Return its exit code, or None if it hangs."""
    command = [sys.executable, "-m", "pytest", *arguments]
    with _LOG.open("wb") as log:
        try:
            return subprocess.call(command, stdout=log, stderr=log, timeout=timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill_remaining_processes()


def _kill_remaining_processes() -> None:
    """Kill the processes that tests have left running."""
    for place in Path("/proc").glob("[0-9]*/cwd"):
        number = int(place.parent.name)
        with contextlib.suppress(OSError):
            if number != os.getpid() and place.readlink().is_relative_to(Path.cwd().parent):
                os.kill(number, signal.SIGKILL)


def _write(module: Path, source: bytes) -> None:
    module.write_bytes(source)
    # Python compares the times of files in whole seconds only.
    Path(importlib.util.cache_from_source(module)).unlink(missing_ok=True)


def choose(mutant: Mutant, recorded: Recorded) -> list[str]:
    """Return the fastest tests for a mutant, as many as fit into `_LIMIT` seconds.

    These tests execute the mutant's line. If no test does, as for lines that run on import, all
    tests of the layer qualify.
    """
    lines, seconds = recorded
    known = {test for at in mutant.lines for test in lines.get(mutant.path, {}).get(at, ())}
    tests = sorted((known & seconds.keys()) or seconds, key=lambda test: (seconds[test], test))
    total = itertools.accumulate(seconds[test] for test in tests)
    return [test for test, elapsed in zip(tests, total, strict=True) if elapsed < _LIMIT]


def try_mutants(mutants: list[Mutant], layers: list[str], jobs: int) -> Iterator[str | None]:
    """Yield the test that kills each mutant."""
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        concurrent.futures.ProcessPoolExecutor(
            jobs, initializer=_begin, initargs=(scratch,)
        ) as pool,
    ):
        recorded = dict(zip(layers, pool.map(_record, layers), strict=True))
        tests = [choose(each, recorded[each.layer]) for each in mutants]
        yield from pool.map(_find_killer, mutants, tests)


def main() -> None:
    """Try a sample of mutants and print the share that the tests kill."""
    parser = argparse.ArgumentParser(description="Print the share of faults that the tests notice.")
    parser.add_argument("--layers", nargs="+", default=[*LAYERS], choices=LAYERS)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--count", type=int, default=400, help="size of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="processes that try mutants")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--compare", type=Path, help="compare with the results in this file")
    options = parser.parse_args()
    population = find_all(ROOT)
    mutants = sample(population, ROOT, options.seed, options.count)
    mutants = {key: each for key, each in mutants.items() if each.layer in options.layers}
    print(f"{len(mutants)} of {len(population)} mutants, seed {options.seed}", flush=True)
    results: dict[str, Result] = {}
    killers = try_mutants([*mutants.values()], options.layers, options.jobs)
    for (key, mutant), killer in zip(mutants.items(), killers, strict=True):
        results[key] = {"layer": mutant.layer, "change": str(mutant), "killer": killer}
        if killer is None:
            print(f"{key} survives: {mutant}", flush=True)
        if options.json:
            found = {"seed": options.seed, "mutants": results}
            options.json.write_text(json.dumps(found, indent=1))
    for layer in options.layers:
        print(_share(layer, [each for each in results.values() if each["layer"] == layer]))
    print(_share("all layers", results.values()))
    if options.compare:
        before = json.loads(options.compare.read_text())["mutants"]
        common = sorted(before.keys() & results.keys())
        print(_share("in both, before", [before[key] for key in common]))
        print(_share("in both, now", [results[key] for key in common]))
        for key in common:
            if before[key]["killer"] and not results[key]["killer"]:
                print("{key} survives now: {change}, was killed by {killer}".format(**before[key]))


def _share(name: str, results: Iterable[Result]) -> str:
    killed = [each["killer"] is not None for each in results]
    return f"{name}: {sum(killed)} of {len(killed)} killed, {sum(killed) / max(len(killed), 1):.1%}"


if __name__ == "__main__":
    main()

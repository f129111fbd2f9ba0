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
import ctypes
import faulthandler
import functools
import hashlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock

import coverage
import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    # Tests by module and line, and the seconds of each test.
    _Recorded = tuple[dict[str, dict[int, list[str]]], dict[str, float]]

ROOT: Final = Path(__file__).parents[1]
# The modules of each layer, and the tests that judge them. The first layer that lists a module owns
# it.
LAYERS: Final = {
    "drivers": (
        ("gearman_proto/engines/driver.py", "gearman_sync/_driver.py", "gearman_anyio/_driver.py"),
        ("tests/engines/test_driving.py", "tests/contract", "tests/sync", "tests/anyio"),
    ),
    "engines": (("gearman_proto/engines",), ("tests/engines",)),
    "jobs": (("gearman_proto/jobs",), ("tests/jobs",)),
    "wire": (("gearman_proto/wire",), ("tests/wire",)),
}
# Seconds after which a test counts as hanging. No test takes nearly as long.
_HANG: Final = 45.0
# Seconds of tests for a mutant.
_LIMIT: Final = 90.0
# Address space of a test process in bytes, so that a runaway mutant cannot exhaust the machine.
_MEMORY: Final = 6 * 1024**3
_PR_SET_CHILD_SUBREAPER: Final = 36
# The current test, or the result of a fork, and the output of the last fork.
_JOURNAL: Final = Path("../journal")
_LOG: Final = Path("../log")

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
    function: str
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
            yield Mutant(layer, path, ".".join(names), at, (start, end), before, text, key)
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


class Recorder:
    """A pytest plugin that records which tests execute which lines, and their durations.

    Attributes:
        seconds: Durations by test.
        failed: Tests that fail without a mutant.
    """

    def __init__(self, modules: list[str]) -> None:
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()
        self._coverage = coverage.Coverage(data_file=None, config_file=False, include=modules)
        self._caches: list[Any] = []

    def result(self) -> _Recorded:
        """Return the tests by line, and the durations of those that pass."""
        data = self._coverage.get_data()
        lines = {os.path.relpath(m): data.contexts_by_lineno(m) for m in data.measured_files()}
        return lines, {test: self.seconds[test] for test in self.seconds.keys() - self.failed}

    def pytest_sessionstart(self) -> None:
        # If measurement started earlier, tests/conftest.py would measure as well.
        self._coverage.start()

    def pytest_collection_finish(self) -> None:
        modules = [vars(sys.modules[name]) for name in sys.modules if name.startswith("gearman")]
        names = itertools.chain.from_iterable(module.values() for module in modules)
        caches = [each for each in names if isinstance(each, functools._lru_cache_wrapper)]
        self._caches = [each for each in caches if ".testing." not in each.__module__]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        _watch()
        self._coverage.switch_context(nodeid)
        # A cached function executes its lines in each test that calls it.
        for cache in self._caches:
            cache.cache_clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration  # type: ignore[assignment]
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()


class Chosen:
    """A pytest plugin that runs the given tests in their order and writes each to a journal."""

    def __init__(self, tests: list[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = (item for item in items if item.nodeid in self._places)
        items[:] = sorted(chosen, key=lambda item: self._places[item.nodeid])

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        _JOURNAL.write_text(item.nodeid)
        # A test that fails only once, under load, has not detected the mutant.
        for _ in range(2):
            _watch()
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if not any(report.failed for report in reports):
                break
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True


def _watch() -> None:
    """Exit this process unless the next call happens in time."""
    faulthandler.dump_traceback_later(_HANG, exit=True, file=2)


# The rest runs in processes that each have a copy of the tree as their working directory. They run
# tests in forks of themselves, which have already imported the libraries that tests need.


def _begin() -> None:
    """Copy the tree, and go there."""
    tree = Path(tempfile.mkdtemp(), "tree")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    os.chdir(tree)
    # This process adopts the processes that tests leave running.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _record(layer: str) -> _Recorded:
    """Return a layer's tests by line, and the durations of those that pass."""
    places, tests = LAYERS[layer]
    modules = [os.path.abspath(place) + ("" if "." in place else "/*") for place in places]
    recorder = Recorder(modules)

    def work() -> int:
        code = _pytest(recorder, *tests)
        _JOURNAL.write_bytes(pickle.dumps(recorder.result()))
        return code

    _fork(work)
    lines, seconds = pickle.loads(_JOURNAL.read_bytes())
    if not seconds:
        log = _LOG.read_text()
        raise RuntimeError(f"no test of the layer {layer} passes without a mutant:\n{log}")
    return lines, seconds


def _judge(mutant: Mutant, tests: list[str]) -> str | None:
    """Return the test that kills a mutant."""
    module = Path(mutant.path)
    original = module.read_bytes()
    _JOURNAL.write_text("an import")
    files = sorted({test.partition("::")[0] for test in tests})
    _write(module, mutant.apply(original))
    code = _fork(lambda: _pytest(Chosen(tests), "-x", *files))
    _write(module, original)
    survived = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return None if survived else _JOURNAL.read_text()


def _fork(work: Callable[[], int]) -> int:
    """Run `work` in a fork of this process. Return the exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.modules.pop("tests", None)
            sys.path[0] = os.environ["PYTHONPATH"] = os.getcwd()
            _watch()
            code = work()
        except Exception:  # noqa: BLE001 - the log has the traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    while left := _child_processes():
        for number in left:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
    return os.waitstatus_to_exitcode(status)


def _write(module: Path, source: bytes) -> None:
    module.write_bytes(source)
    # Python compares the times of files in whole seconds only.
    Path(importlib.util.cache_from_source(module)).unlink(missing_ok=True)


def _child_processes() -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return [number for number, parent in parents.items() if parent == os.getpid()]


def _pytest(plugin: object, *args: str) -> int:
    # Libraries that are imported before pytest loads them as plugins cannot be rewritten.
    options = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider", "-q")
    return int(pytest.main([*options, "-m", "not slow", *args], plugins=[plugin]))


def choose(mutant: Mutant, recorded: _Recorded) -> list[str]:
    """Return the fastest tests for a mutant, as many as fit into `_LIMIT` seconds.

    These tests execute the mutant's line. If no test does, as for lines that run on import, all
    tests of the layer qualify.
    """
    lines, seconds = recorded
    known = {test for at in mutant.lines for test in lines.get(mutant.path, {}).get(at, ())}
    tests = sorted((known & seconds.keys()) or seconds, key=lambda test: (seconds[test], test))
    total = itertools.accumulate(seconds[test] for test in tests)
    return [test for test, elapsed in zip(tests, total, strict=True) if elapsed < _LIMIT]


def _judge_all(
    mutants: dict[str, Mutant], layers: list[str], jobs: int
) -> Iterator[dict[str, Any]]:
    """Yield the results of mutants in order."""
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        mock.patch.object(tempfile, "tempdir", scratch),
        mock.patch.dict(os.environ, TMPDIR=scratch),
        concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context("fork"), _begin
        ) as pool,
    ):
        recorded = dict(zip(layers, pool.map(_record, layers), strict=True))
        tests = [choose(each, recorded[each.layer]) for each in mutants.values()]
        killers = pool.map(_judge, mutants.values(), tests)
        for (key, mutant), chosen, killer in zip(mutants.items(), tests, killers, strict=True):
            yield {
                "key": key,
                "layer": mutant.layer,
                "function": mutant.function,
                "change": str(mutant),
                "tests": len(chosen),
                "killer": killer,
            }


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
    for name in ("anyio.pytest_plugin", "hypothesis.stateful", "rich", "trio", "typer"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # The copies of the tree keep their bytecode.
    sys.dont_write_bytecode, sys.pycache_prefix = False, None
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTEST_ADDOPTS"):
        os.environ.pop(name, None)
    results: dict[str, dict[str, Any]] = {}
    for result in _judge_all(mutants, options.layers, options.jobs):
        results[result["key"]] = result
        if result["killer"] is None:
            print("{key} survives {tests} tests: {change}".format(**result), flush=True)
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


def _share(name: str, results: Iterable[dict[str, Any]]) -> str:
    killed = [each["killer"] is not None for each in results]
    return f"{name}: {sum(killed)} of {len(killed)} killed, {sum(killed) / max(len(killed), 1):.1%}"


if __name__ == "__main__":
    main()

"""The mutation tool: its changes, its sample, and its verdicts on a toy package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gearman_proto
from tests.mutants import LAYERS, Mutant, compare, find_mutants, sample

ROOT = Path(__file__).parents[1]
SOURCES = Path(gearman_proto.__file__).parents[1]
FUNCTION = "def f(x, y):\n    {}\n"
TOY = "def is_small(x):\n    return x < 10\n"
LETTER = 'LETTER = "ab"[1]\n'
TOY_TEST = """
from gearman_proto.wire.letter import LETTER
from gearman_proto.wire.toy import is_small

def test_small():
    assert is_small(9)
    assert not is_small(12)

def test_letter():
    assert LETTER == "b"
"""


def mutants_of(source: str, path: str = "toy.py") -> list[Mutant]:
    return list(find_mutants("wire", path, source.encode()))


def keys_of(root: Path, sources: dict[str, str], seed: int = 1, count: int = 5) -> list[str]:
    for path, source in sources.items():
        (root / path).write_text(source)
    mutants = [each for path in sources for each in mutants_of(sources[path], path)]
    return [*sample(mutants, root, seed, count)]


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("z = x < y", ["z = (x <= y)", "z = (x >= y)"]),
        ("z = x is y", ["z = (x is not y)"]),
        ("z = x in y", ["z = (x not in y)"]),
        ("z = x and y", ["z = (x or y)"]),
        ("z = x + y", ["z = (x - y)"]),
        ("z = not x", ["z = (x)"]),
        ("z = -x", ["z = (x)"]),
        ("z = 1", ["z = (2)", "z = (0)"]),
        ("z = 0.5", ["z = (1.5)"]),
        ("z = True", ["z = (False)"]),
        ("z = [a for a in x if y]", ["z = [a for a in x if (not (y))]"]),
        ("x += y", ["pass", "x -= y"]),
        ("x.y = y", ["pass"]),
        ("x.y: int = y", ["pass"]),
        ("del x[y]", ["pass"]),
        ("x(y)", ["pass"]),
        ("raise x", ["pass"]),
        ("return", ["pass"]),
        ("return x", ["return None"]),
        ("if x: x = y", ["if (not (x)): x = y"]),
        ("while x: break", ["while (not (x)): break", "while x: continue"]),
        ("while x: continue", ["while (not (x)): continue", "while x: break"]),
    ],
)
def test_operator_in_function_changes_source(source: str, changed: list[str]) -> None:
    whole = FUNCTION.format(source)
    found = [each.apply(whole.encode()).decode() for each in mutants_of(whole)]
    assert found == [FUNCTION.format(each) for each in changed]


@pytest.mark.parametrize(
    "source",
    [
        '"""Docstring."""',
        "z: Literal[1] = x",
        "assert x < 1",
        "raise NotImplementedError",
        "logger.info(x + 1)",
        "warnings.warn(x, stacklevel=2)",
        "z = f'{x + 1}'",
        "z = x + 'text'",
        "return None",
        "def __repr__(self): return x + 1",
        "if TYPE_CHECKING: x = 1",
    ],
)
def test_code_that_no_test_should_notice_has_no_mutants(source: str) -> None:
    assert not mutants_of(FUNCTION.format(source))


def test_mutant_of_several_lines_keeps_line_numbers() -> None:
    source = "x = (\n    a\n    < b\n)\ny = z\n"
    for mutant in mutants_of(source):
        assert mutant.apply(source.encode()).splitlines()[4] == b"y = z"


def test_sample_again_is_the_same(tmp_path: Path) -> None:
    sources = {"toy.py": "def f(x):\n    return [x + 1, x - 1, x < 2, x * 3, 4, 5, 6]\n"}
    first = keys_of(tmp_path, sources)
    assert keys_of(tmp_path, sources) == first
    assert keys_of(tmp_path, sources, count=3) == first[:3]
    assert keys_of(tmp_path, sources, seed=2) != first


def test_sample_of_moved_code_is_the_same(tmp_path: Path) -> None:
    function = "def f(x):\n    y = x + 1\n    return y < 7\n"
    moved = "def g(x):\n    return x\n\n\n" + function.replace("y = x", "text = 'a'\n    y = x")
    before = keys_of(tmp_path, {"toy.py": function}, count=100)
    after = keys_of(tmp_path, {"toy.py": "", "other.py": moved}, count=100)
    assert len(before) == 8
    assert set(before) < set(after)


def test_sample_leaves_out_syntax_errors(tmp_path: Path) -> None:
    # `(2)` can't be a key in a pattern.
    source = "match x:\n    case {1: y}:\n        pass\n"
    assert len(mutants_of(source)) == 2
    assert not keys_of(tmp_path, {"toy.py": source})


def test_layers_have_modules_and_tests() -> None:
    for places, tests in LAYERS.values():
        # The packages can be installed elsewhere.
        assert all((SOURCES / place).exists() for place in places)
        assert all((ROOT / test).exists() for test in tests)


def test_run_on_toy_package_tells_killed_from_surviving(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    for places, tests in LAYERS.values():
        for place in (*places, *tests):
            module = root / place if place.endswith(".py") else root / place / "__init__.py"
            module.parent.mkdir(parents=True, exist_ok=True)
            module.touch()
    (root / "gearman_proto/__init__.py").touch()
    (root / "gearman_proto/wire/toy.py").write_text(TOY)
    (root / "gearman_proto/wire/letter.py").write_text(LETTER)
    (root / "tests/wire/test_toy.py").write_text(TOY_TEST)
    (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    results = tmp_path / "results.json"
    options = ["--root", str(root), "--layers", "wire", "--seed", "8", "--json", str(results)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", *options],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all layers: 5 of 7 killed, 71.4%" in done.stdout
    verdicts = [
        (each["change"].partition(":")[2], each["killer"])
        for each in json.loads(results.read_text())["mutants"].values()
    ]
    # The first mutant breaks an import. The tree must not keep it.
    assert verdicts[0] == ("1  1  ->  (2)", "an import")
    assert dict(verdicts[1:]) == {
        "1  1  ->  (0)": "tests/wire/test_toy.py::test_letter",
        "2  return x < 10  ->  return None": "tests/wire/test_toy.py::test_small",
        "2  x < 10  ->  (x >= 10)": "tests/wire/test_toy.py::test_small",
        "2  x < 10  ->  (x <= 10)": None,
        "2  10  ->  (11)": None,
        "2  10  ->  (9)": "tests/wire/test_toy.py::test_small",
    }
    assert (root / "gearman_proto/wire/toy.py").read_text() == TOY


def test_comparison_names_mutants_that_survive_now() -> None:
    killed = {"key": "k", "change": "x  ->  y", "killer": "test_x"}
    alive = {**killed, "killer": None}
    assert [*compare({"k": killed, "gone": killed}, {"k": alive, "new": alive})] == [
        "in both, before: 1 of 1 killed, 100.0%",
        "in both, now: 0 of 1 killed, 0.0%",
        "k survives now: x  ->  y, was killed by test_x",
    ]

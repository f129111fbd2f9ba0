"""The changes that the mutation tool makes, and the rule for its sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.mutants import find_mutants, sample

if TYPE_CHECKING:
    from pathlib import Path

#: Lines of a function, and what replaces each. The others are no concern of tests.
CHANGES = {
    "z = x < y": "z = (x <= y)|z = (x >= y)",
    "z = x is y": "z = (x is not y)",
    "z = x in y": "z = (x not in y)",
    "z = x and y": "z = (x or y)",
    "z = x + y": "z = (x - y)",
    "z = not x": "z = (x)",
    "z = -x": "z = (x)",
    "z = 1": "z = (2)|z = (0)",
    "z = 0.5": "z = (1.5)",
    "z = True": "z = (False)",
    "z = [a for a in x if y]": "z = [a for a in x if (not (y))]",
    "x += y": "pass|x -= y",
    "x.y: int = y": "pass",
    "del x[y]": "pass",
    "x(y)": "pass",
    "raise x": "pass",
    "return x": "return None",
    "while x: break": "while (not (x)): break|while x: continue",
    '"""Docstring."""': "",
    "z: Literal[1] = x": "",
    "assert x < 1": "",
    "raise NotImplementedError": "",
    "logger.info(x + 1)": "",
    "warnings.warn(x, stacklevel=2)": "",
    "z = f'{x + 1}'": "",
    "z = x + 'text'": "",
    "return None": "",
    "def __repr__(self): return x + 1": "",
    "if TYPE_CHECKING: x = 1": "",
}
SOURCE = "def f(x, y):\n    " + "\n    ".join(CHANGES) + "\n"


def test_changes_of_lines() -> None:
    found: dict[str, list[str]] = {line: [] for line in CHANGES}
    for mutant in find_mutants("wire", "toy.py", SOURCE.encode()):
        number = mutant.lines[-1] - 1
        line = mutant.apply(SOURCE.encode()).decode().splitlines()[number].strip()
        found[[*CHANGES][number - 1]].append(line)
    assert {line: "|".join(some) for line, some in found.items()} == CHANGES


def test_sample_does_not_depend_on_other_code(tmp_path: Path) -> None:
    """Samples of today have to be comparable with older ones."""
    moved = f"import x\n\n\n{SOURCE}"
    for name, source in ("toy.py", SOURCE), ("moved.py", moved):
        (tmp_path / name).write_text(source)
        mutants = find_mutants("wire", name, source.encode())
        chosen = sample(mutants, tmp_path, seed=1, count=3)
        assert list(chosen) == ["0986aa6c4af1aa07", "0a665cb2a387423a", "1695de34f2e930c6"]
    # `(2)` can't be a key in a pattern.
    (tmp_path / "pattern.py").write_text("match x:\n    case {1: y}:\n        pass\n")
    mutants = find_mutants("wire", "pattern.py", (tmp_path / "pattern.py").read_bytes())
    assert not sample(mutants, tmp_path, seed=1, count=3)

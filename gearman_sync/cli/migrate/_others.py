"""The rules for programs of gear and aiogear, whose names are all others."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from ._families import AIOGEAR, AIOGEAR_COMMON, GEAR, GEAR_COMMON
from ._kinds import functions_in

if TYPE_CHECKING:
    from ._checks import Checker

_TABLES: Final = {"gear": (GEAR, GEAR_COMMON), "aiogear": (AIOGEAR, AIOGEAR_COMMON)}
_WHOLE: Final = "there is no mode for it: see docs/howto/migrating.md for what stands for each name"


def check(checker: Checker, node: ast.AST) -> None:
    """Say what the rules have to say of one node."""
    family = checker.family
    names, common = _TABLES[family]
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == family:
                checker.found(family, node, _WHOLE, code=alias.name)
    elif isinstance(node, ast.ImportFrom):
        if not node.level and (node.module or "").partition(".")[0] == family:
            for alias in node.names:
                more = names.get(alias.name, _WHOLE)
                checker.found(family, node, more, code=f"{node.module}.{alias.name}")
    elif isinstance(node, ast.Attribute):
        owner = checker.kind(node.value)
        if owner is not None and owner.what == "module" and owner.name.startswith(family):
            checker.found(family, node, names.get(node.attr, _WHOLE))
        elif node.attr in names and not node.attr[0].isupper():
            ours = owner is not None and owner.what.startswith(family)
            if ours or (owner is None and node.attr not in common):
                checker.found(family, node, names[node.attr])
    elif isinstance(node, ast.ClassDef):
        kinds = [checker.kind(base) for base in node.bases]
        if any(kind is not None and kind.name.startswith(family) for kind in kinds):
            for function in functions_in(node.body):
                if function.name in names:
                    code = f"def {function.name}"
                    checker.found(family, function, names[function.name], code=code)

"""Goes through a file: what each name stands for, and what the rules say of each place."""

# ruff: noqa: N815 - the methods and their names are ast.NodeVisitor's

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gearman_proto.foreign import shown

from ._kinds import (
    MANAGERS,
    Function,
    Guess,
    Kind,
    Knowledge,
    Scope,
    functions_in,
    only,
    parameters,
)
from ._rules import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._sources import Source

#: Characters of a line that are shown.
_LONGEST: Final = 60
#: The methods of a worker that get the job first.
_HOOKS: Final = frozenset({"on_job_execute", "on_job_exception", "on_job_complete"})
#: What a program looks at before it treats something as one thing or the other.
_LOOKS: Final = frozenset({"isinstance", "hasattr", "type", "callable", "getattr"})


@dataclass(frozen=True)
class _Later:
    """A function, which is looked at when all names around it are known."""

    function: Function
    scope: Scope
    owner: str | None
    own: Kind | None


class Checker(Guess, ast.NodeVisitor):
    """Looks at one file."""

    def __init__(
        self,
        source: Source,
        family: str,
        modules: set[str],
        knowledge: Knowledge,
        check: Callable[[Checker, ast.AST], None],
    ) -> None:
        """Make a checker.

        Args:
            source: The file, which has a tree.
            family: Whose rules to apply: gearman, gear or aiogear.
            modules: The libraries that it imports.
            knowledge: What is known about it.
            check: Says what the rules have to say of one node.
        """
        super().__init__(knowledge, family)
        self.modules = modules
        self._check = check
        self.source = source
        self.findings: set[Finding] = set()
        #: Nodes of which something was said already.
        self.done: set[ast.AST] = set()
        #: What is logged, printed or raised: somebody reads it.
        self.read_by_people: set[ast.AST] = set()
        self._later: list[_Later] = []
        assert source.tree is not None
        #: The function that is looked at, or the module.
        self.function: ast.AST = source.tree
        self._name: str | None = None
        #: All functions by name, with the class that they are in.
        self.functions: dict[str, list[tuple[Function, str | None]]] = {}
        #: The names of all attributes that the program assigns.
        self.assigned: set[str] = set()
        self._index(source.tree)

    def _index(self, tree: ast.Module) -> None:
        in_classes: dict[ast.AST, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                in_classes |= dict.fromkeys(functions_in(node.body), node.name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.setdefault(node.name, []).append((node, in_classes.get(node)))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                self.assigned.add(node.attr)
        self.all_encoded = "data_encoder" in self.assigned
        self.defined = set(self.functions)

    def run(self) -> None:
        """Look at all of it."""
        assert self.source.tree is not None
        self._block(self.source.tree.body)
        while self._later:
            self._look_into(self._later.pop(0))

    def found(self, rule: str, node: ast.AST, more: str = "", *, code: str | None = None) -> None:
        """Note a finding."""
        self.done.add(node)
        code = ast.unparse(node) if code is None else code
        line = getattr(node, "lineno", 1)
        code = shown(" ".join(code.split()), _LONGEST)
        self.findings.add(Finding(str(self.source.path), line, rule, code, more))

    # Statements.

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def visit(self, node: ast.AST) -> None:
        """Look at a node, and at what is in it."""
        if isinstance(node, ast.expr | ast.stmt | ast.excepthandler):
            self._check(self, node)
        super().visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.bind_import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.bind_from(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        kind = self.kind(node.value)
        for target in node.targets:
            self.visit(target)
            self.assign(target, kind, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)
        kind = self.annotation(node.annotation) or self.kind(node.value)
        self.assign(node.target, kind, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            kind = self.kind(node.target)
            if kind is None or kind.what not in ("requests", "rows"):
                self.assign(node.target, None)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.assign(node.target, self.kind(node.value), node.value)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        self._assign_items(node.target, node.iter)
        self._block(node.body)
        self._block(node.orelse)

    visit_AsyncFor = visit_For

    def _assign_items(self, target: ast.expr, iterated: ast.expr) -> None:
        if (
            isinstance(iterated, ast.Call)
            and isinstance(iterated.func, ast.Name)
            and iterated.func.id == "enumerate"
            and iterated.args
            and isinstance(target, ast.Tuple)
            and len(target.elts) == 2
        ):
            target, iterated = target.elts[1], iterated.args[0]
        self.assign(target, self.item(self.kind(iterated)))

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        self._assign_items(node.target, node.iter)
        for condition in node.ifs:
            self.visit(condition)

    def _visit_comprehension_of(self, node: ast.expr) -> None:
        outer, self.scope = self.scope, Scope(self.scope, owner=self.scope.owner)
        for part in getattr(node, "generators", []):
            self.visit(part)
        for name in ("key", "value", "elt"):
            if hasattr(node, name):
                self.visit(getattr(node, name))
        self.scope = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension_of

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, self.kind(item.context_expr))
        self._block(node.body)

    visit_AsyncWith = visit_With

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = dict(self.scope.names)
        self.guarded.append(_guards(node.test))
        self._block(node.body)
        after_body, self.scope.names = self.scope.names, before
        self._block(node.orelse)
        self.guarded.pop()
        if node.body and not isinstance(
            node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break
        ):
            for name, kind in after_body.items():
                same = self.scope.names.get(name, kind if name not in before else None) == kind
                self.scope.names[name] = kind if same else None
        elif guarded := _guards(node.test):
            for name in guarded & self.scope.names.keys():
                self.scope.names[name] = None  # `if not isinstance(data, bytes): return`

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.guarded.append(_guards(node.test))
        self.generic_visit(node)
        self.guarded.pop()

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.guarded.append(_guards(node))
        self.generic_visit(node)
        self.guarded.pop()

    def visit_Return(self, node: ast.Return) -> None:
        self.generic_visit(node)
        if self._name is not None:
            kinds = self.learned.returned.setdefault(self._name, set())
            if not (isinstance(node.value, ast.Constant) or node.value is None):
                kinds.add(self.kind(node.value))

    def visit_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Call):
            self.read_by_people.update(node.exc.args)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = node.func
        name = function.id if isinstance(function, ast.Name) else None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            name = function.attr if function.value.id in ("self", "cls") else None
        if name in self.functions:
            for number, argument in enumerate(node.args):
                self._learn_argument(name, number, argument)
            for keyword in node.keywords:
                if keyword.arg is not None:
                    self._learn_argument(name, keyword.arg, keyword.value)

    def _learn_argument(self, function: str, place: int | str, value: ast.expr) -> None:
        if not (isinstance(value, ast.Constant) and value.value is None):
            kinds = self.learned.arguments.setdefault((function, place), set())
            kinds.add(self.kind(value))

    # What has names of its own.

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for expression in (*node.decorator_list, *node.bases):
            self.visit(expression)
        kind = class_kind(self, node)
        self.scope.names[node.name] = kind
        outer = self.scope
        self.scope = Scope(outer, owner=node.name)
        own = None if kind is None else Kind(kind.name, encoded=kind.encoded, own=True)
        outside, self._later = self._later, []
        self._block(node.body)
        # Names of a class are not those of its methods.
        self._later = outside + [
            replace(later, scope=outer, own=own) if later.scope is self.scope else later
            for later in self._later
        ]
        self.scope = outer

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for expression in (*node.decorator_list, *node.args.defaults):
            self.visit(expression)
        for default in node.args.kw_defaults:
            if default is not None:
                self.visit(default)
        self.scope.names[node.name] = None
        self._later.append(_Later(node, self.scope, self.scope.owner, None))

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._later.append(_Later(node, self.scope, self.scope.owner, None))

    def _look_into(self, later: _Later) -> None:
        node = later.function
        self.scope = Scope(later.scope, owner=later.owner)
        self.guarded = []
        self.function = node
        self._bind_parameters(node, later.own)
        if isinstance(node, ast.Lambda):
            self._name = None
            self.visit(node.body)
        else:
            self._name = node.name
            self._block(node.body)

    def _bind_parameters(self, node: Function, own: Kind | None) -> None:
        names = parameters(node)
        everything = [*names, *node.args.kwonlyargs]
        everything += [each for each in (node.args.vararg, node.args.kwarg) if each is not None]
        for each in everything:
            self.scope.names[each.arg] = self.annotation(each.annotation)
        name = None if isinstance(node, ast.Lambda) else node.name
        first = int(self.is_method(node))
        if first and names:
            self.scope.names[names[0].arg] = own
        for number, each in enumerate(names[first:]):
            if self.scope.names[each.arg] is None and name is not None:
                kinds = set()
                for place in (number, each.arg):
                    kinds |= self.knowledge.arguments.get((name, place), set())
                self.scope.names[each.arg] = only(kinds)
        if own is not None and own.what == "worker" and name in _HOOKS:
            self._bind(names, first, Kind("job", encoded=own.encoded))
        if node in self.knowledge.callbacks:
            encoded, before = self.knowledge.callbacks[node]
            self._bind(names, first + before, Kind("worker", encoded=encoded, own=True))
            self._bind(names, first + before + 1, Kind("job", encoded=encoded))

    def _bind(self, names: list[ast.arg], number: int, kind: Kind) -> None:
        if number < len(names):
            self.scope.names[names[number].arg] = kind

    def is_method(self, node: Function) -> bool:
        """Whether a function gets the object before its arguments."""
        if isinstance(node, ast.Lambda):
            return False
        owners = {owner for function, owner in self.functions[node.name] if function is node}
        static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
        return owners != {None} and not static


def _guards(test: ast.expr) -> set[str]:
    """What a condition looks at before the program treats it as one thing or the other."""
    return {
        ast.unparse(node.args[0])
        for node in ast.walk(test)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _LOOKS
        and node.args
    }


def class_kind(guess: Guess, node: ast.ClassDef) -> Kind | None:
    """Return what a class of the program is, if it comes from one of a library."""
    for base in node.bases:
        kind = guess.kind(base)
        if kind is not None and kind.what == "class":
            encoded = kind.encoded or (kind.name in MANAGERS and _has_encoder(node))
            return Kind("class", kind.name, encoded, own=True)
    return None


def _has_encoder(node: ast.ClassDef) -> bool:
    return any(
        (isinstance(each, ast.Name) and each.id == "data_encoder")
        or (isinstance(each, ast.Attribute) and each.attr == "data_encoder")
        for each in ast.walk(node)
        if isinstance(getattr(each, "ctx", None), ast.Store)
    )

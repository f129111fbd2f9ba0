"""Resolution of the names in a file: imports, classes, objects, the parameters of callbacks.

A kind is a string: a dotted name in a library such as ``gearman.GearmanClient``, or an object such
as ``client`` or ``data``. A leading ``+`` marks a class that the program derives, and its objects.
In libraries that are not forks of python-gearman, an object has the name of its class. A name has a
kind only if all assignments to it in its scope agree. So ``data`` has no kind if the program also
contains ``data = data.decode()``.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final

from ._names import ALL_MODULES, OTHERS, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._sources import Source

#: (module without its package, name) -> kind
Exports = dict[tuple[str, str], str]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
#: The classes of python-gearman, and the kinds of their instances.
_CLASSES: Final = table("""
    GearmanAdminClient: admin
    GearmanClient: client
    GearmanConnectionManager: manager
    GearmanJob: job
    GearmanJobRequest: request
    GearmanWorker: worker
""")
#: The kinds of attributes, results and items. ``?`` is an unknown object.
_KINDS: Final = table("""
    job.data request.result request.exception updates.popleft() data[]: data
    job.task job.unique job.handle request.task request.unique request.handle: name
    request.job request.gearman_job: job
    request.data_updates request.warning_updates: updates
    client.submit_job() ?.submit_job() client.get_job_status() ?.get_job_status(): request
    requests[]: request
    client.submit_multiple_jobs() ?.submit_multiple_jobs() client.get_job_statuses(): requests
    client.submit_multiple_requests() ?.submit_multiple_requests(): requests
    client.wait_until_jobs_completed() ?.wait_until_jobs_completed(): requests
    admin.get_status() admin.get_workers(): rows
""")
#: Names of parameters that are always a job, and methods whose first parameter is a job.
_JOBS: Final = frozenset({"gearman_job", "current_job"})
_HOOKS: Final = frozenset({"on_job_execute", "on_job_exception", "on_job_complete"})
#: Functions that programs use to check the type of a value.
_LOOKS: Final = frozenset({"isinstance", "hasattr", "type", "callable", "getattr"})


class Names:
    """The names in one file."""

    def __init__(self, source: Source, tree: ast.Module, *, is_encoded: bool) -> None:
        #: True if a file of the program has a `data_encoder`. The types of data are unknown then.
        self.is_encoded = is_encoded
        self.tree = tree
        package = source.path.stem == "__init__"
        self._module = source.path.parent.name if package else source.path.stem
        #: Imports override assignments in the module, such as ``except ImportError: gearman =
        #: None``.
        self.imports: dict[str, str] = {}
        #: The libraries that the file imports.
        self.modules: set[str] = set()
        self.functions: dict[str, list[Function]] = {}
        #: (function, class or module, name) -> kind.
        self.known: dict[tuple[ast.AST, str], str] = {}
        self.parents: dict[ast.AST, ast.AST] = {}
        self._callbacks: dict[ast.arg, str] = {}
        self._looked_at: set[tuple[ast.AST, str]] = set()
        self._kinds: dict[ast.AST, str] = {}
        self.nodes = list(ast.walk(tree))
        self._bindings = [each for each in self.nodes if not isinstance(each, ast.Name | ast.Call)]
        for node in self.nodes:
            self.parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    self.functions.setdefault(name, []).append(node)
                    names = parameters(node)
                    if [each.arg.rpartition("_")[2] for each in names[:2]] == ["worker", "job"]:
                        self.bind_callback(node)
                    for each in names:
                        if each.arg in _JOBS or (name in _HOOKS and each is names[0]):
                            self._callbacks[each] = "job"
                case ast.Call(func=ast.Name(id=name), args=[value, *_]) if name in _LOOKS:
                    self._looked_at.add((self.scope(node), dotted(value)))

    def bind_callback(self, function: Function) -> None:
        """Record that a function is called with a worker and a job."""
        self._callbacks |= zip(parameters(function), ("+worker", "job"))

    def scope(self, node: ast.AST, *, of: Any = Function | ast.ClassDef) -> ast.AST:
        """Return the innermost function or class around a node, or the module."""
        while node is not self.tree:
            node = self.parents[node]
            if isinstance(node, of):
                break
        return node

    def learn(self, exports: Exports) -> Exports:
        """Resolve the kinds of all names, one step further.

        Return the names that others can import.
        """
        self._kinds.clear()
        known: dict[tuple[ast.AST, str], str] = {}
        for node in self._bindings:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node, exports)
            for name, kind in self._assigned(node) if self.modules or self._callbacks else ():
                scope = self.scope(node, of=ast.ClassDef) if "." in name else self.scope(node)
                known[scope, name] = kind if known.get((scope, name), kind) == kind else ""
        self.known = known
        self.bound = {*self.imports, *(name for _, name in known)}
        paths = filter(is_path, self.imports.values())
        self.modules = {path.lstrip("+").partition(".")[0] for path in paths}
        kinds = {name: self._find(name, self.tree) for name in self.bound}
        return {(self._module, name): kind for name, kind in kinds.items() if kind}

    def _import(self, node: ast.Import | ast.ImportFrom, exports: Exports) -> None:
        module = getattr(node, "module", None) or ""
        for alias in node.names:
            name, kind = alias.asname or alias.name.partition(".")[0], ""
            if isinstance(node, ast.Import):
                kind = alias.name if alias.asname else name
            elif not node.level and is_path(module):
                kind = joined(module, alias.name)
            elif alias.name != "*":
                kind = exports.get((module.rpartition(".")[2], alias.name), "")
            if is_path(kind) or kind in _CLASSES.values():
                self.imports[name] = kind  # Of try and except, the library's name wins.
            if alias.name == "*" and is_path(module):
                self.imports |= {each: joined(module, each) for each in _CLASSES}

    def _assigned(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                yield name, self.kind(node)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from self._bound(target, value, self.kind(value))
            case ast.AnnAssign() | ast.NamedExpr():
                yield from self._bound(node.target, node.value, self.kind(node.value))
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                kind = _KINDS.get(f"{self.kind(node.iter)}[]", "")
                yield from self._bound(node.target, node.iter, kind)
            case ast.withitem(context_expr=value, optional_vars=target) if target is not None:
                yield from self._bound(target, value, self.kind(value))

    def _bound(self, target: ast.AST, value: Any, kind: str) -> Iterator[tuple[str, str]]:
        if isinstance(target, ast.Tuple | ast.List):
            yield from ((dotted(each), "") for each in target.elts)
        elif getattr(value, "value", value) is not None:  # Ignore client = None.
            yield dotted(target), kind

    def kind(self, node: ast.AST | None) -> str:
        """Return the kind of an expression, or an empty string if it is unknown."""
        if node is None:
            return ""
        if node not in self._kinds:
            found = self._kind(node)
            is_looked_at = (self.scope(node), dotted(node)) in self._looked_at
            unknown = ("data", "name") if is_looked_at else ("data",) * self.is_encoded
            self._kinds[node] = "" if found in unknown else found
        return self._kinds[node]

    def _kind(self, node: ast.AST) -> str:
        match node:
            case ast.Name(id=name):
                return self._find(name, self.scope(node))
            case ast.arg(arg="self"):
                return instance(self.kind(self.scope(node, of=ast.ClassDef)))
            case ast.arg(annotation=annotation):
                return self._callbacks.get(node) or instance(self.kind(annotation))
            case ast.ClassDef(bases=bases):
                kinds = [kind.lstrip("+") for base in bases if is_path(kind := self.kind(base))]
                return f"+{kinds[0]}" if kinds else ""
            case ast.Attribute(value=value, attr=name):
                key = self.scope(node, of=ast.ClassDef), dotted(node)
                owner = self.kind(value).lstrip("+")
                if key in self.known or not is_path(owner):
                    return self.known.get(key, _KINDS.get(f"{owner}.{name}", ""))
                return joined(owner, name)
            case ast.Call(func=function):
                return self._returned(function)
            case ast.Subscript(value=value, slice=index):
                whole = self.kind(value)
                return whole if isinstance(index, ast.Slice) else _KINDS.get(f"{whole}[]", "")
            case ast.Await(value=value) | ast.YieldFrom(value=value) | ast.NamedExpr(value=value):
                return self.kind(value)
        return ""

    def _returned(self, function: ast.expr) -> str:
        called = self.kind(function)
        if called or not isinstance(function, ast.Attribute):
            is_super = dotted(function) == "super"
            return instance(
                self.kind(self.scope(function, of=ast.ClassDef)) if is_super else called
            )
        owner = self.kind(function.value)
        if function.attr in self.functions and owner[:1] in ("", "+"):
            return ""  # The method could be the program's own.
        return _KINDS.get(f"{owner.lstrip('+') or '?'}.{function.attr}()", "")

    def _find(self, name: str, scope: ast.AST) -> str:
        while scope is not self.tree and (scope, name) not in self.known:
            scope = self.scope(scope)
        found = self.known.get((scope, name), "")
        return self.imports.get(name, found) if scope is self.tree else found


def is_path(kind: str) -> bool:
    """Return True if a kind is a name in a library, or a class derived from one."""
    return kind.lstrip("+").partition(".")[0] in ALL_MODULES


def joined(path: str, *names: str) -> str:
    """Return the kind of a dotted name. libgearman is a module in the package gearman."""
    path = ".".join([path, *names])
    return path.removeprefix("gearman.") if path.startswith("gearman.libgearman") else path


def instance(kind: str) -> str:
    """Return the kind of an instance of a class."""
    own, path = kind[: kind.startswith("+")], kind.lstrip("+")
    if path.partition(".")[0] in OTHERS:
        return kind
    made = _CLASSES.get(path.rpartition(".")[2], "")
    return own + made if made else ""


def dotted(node: ast.AST | None) -> str:
    """Return a chain of names as text, or an empty string if `node` is something else."""
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def parameters(function: Function) -> list[ast.arg]:
    """Return the positional parameters without `self`."""
    names = [*function.args.posonlyargs, *function.args.args]
    return names[1:] if names and names[0].arg in ("self", "cls") else names

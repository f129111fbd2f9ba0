"""What a name in a program stands for: a guess from what is written, which rather knows nothing.

A `Kind` is a module of a library, a class of it, or what comes of these. `KINDS_OF_ATTRIBUTES` and
the tables below it say what an attribute or a call of one kind is. Names are followed from line to
line: what was data until ``data = data.decode()`` is nothing that is known after it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from ._families import ALL_MODULES, DISTRIBUTIONS, GEARMAN_MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Kind:
    """What something is.

    Attributes:
        what: ``module``, ``class``, or what an object is: ``client``, ``request``, ``data``...
        name: Of a module its whole name, of a class what its objects are.
        encoded: Whether a data encoder makes something else of data than bytes.
        own: Whether the class was made by the program, from one of the library, or may have been.
    """

    what: str
    name: str = ""
    encoded: bool = False
    own: bool = False


#: The classes of python-gearman, and what their objects are.
CLASSES: Final = {
    "GearmanAdminClient": "admin",
    "GearmanClient": "client",
    "GearmanConnection": "connection",
    "GearmanConnectionManager": "manager",
    "GearmanJob": "job",
    "GearmanJobRequest": "request",
    "GearmanWorker": "worker",
    "DataEncoder": "encoder",
}
#: Those of gear and aiogear.
OTHER_CLASSES: Final = {
    "gear": {
        "Client": "gear-client",
        "Worker": "gear-client",
        "TextWorker": "gear-client",
        "Job": "gear-job",
        "TextJob": "gear-job",
        "WorkerJob": "gear-job",
        "TextWorkerJob": "gear-job",
        "Server": "gear-client",
    },
    "aiogear": {
        "Admin": "aiogear-object",
        "CallbackClient": "aiogear-object",
        "Client": "aiogear-object",
        "Worker": "aiogear-object",
    },
}
MANAGERS: Final = frozenset({"client", "worker", "admin", "manager"})

#: What an attribute of something is.
KINDS_OF_ATTRIBUTES: Final = {
    **{(owner, "connection_list"): "connections" for owner in MANAGERS},
    **{("job", name): "name" for name in ("task", "unique", "handle")},
    **{("submitted", name): "name" for name in ("task", "unique", "handle")},
    **{("request", name): "name" for name in ("task", "unique", "handle")},
    ("job", "data"): "data",
    ("request", "result"): "data",
    ("request", "exception"): "data",
    ("request", "job"): "submitted",
    ("request", "gearman_job"): "submitted",
    ("request", "status"): "status",
    ("request", "data_updates"): "updates",
    ("request", "warning_updates"): "updates",
}
#: What a call of a method returns.
KINDS_OF_CALLS: Final = {
    ("client", "submit_job"): "request",
    ("client", "get_job_status"): "request",
    ("client", "submit_multiple_jobs"): "requests",
    ("client", "submit_multiple_requests"): "requests",
    ("client", "wait_until_jobs_accepted"): "requests",
    ("client", "wait_until_jobs_completed"): "requests",
    ("client", "wait_until_any_job_completed"): "requests",
    ("client", "get_job_statuses"): "requests",
    ("admin", "get_status"): "rows",
    ("admin", "get_workers"): "rows",
    ("admin", "get_jobs"): "job-rows",
    ("admin", "get_unique_jobs"): "unique-rows",
    ("admin", "get_pid"): "pid",
    ("updates", "popleft"): "data",
    ("updates", "pop"): "data",
    ("requests", "pop"): "request",
    ("gear-client", "getJob"): "gear-job",
}
#: What the parts of something are.
KINDS_OF_ITEMS: Final = {
    "requests": "request",
    "rows": "row",
    "job-rows": "job-row",
    "unique-rows": "unique-row",
    "connections": "connection",
    "updates": "data",
}
#: Calls that return what they are given, or the same with another length or order.
_KEEPERS: Final = frozenset({"list", "tuple", "sorted", "set", "reversed", "iter"})


@dataclass
class Scope:
    """The names of a function, a class or a module.

    Attributes:
        parent: The scope around it; a function's is never a class.
        names: What they stand for; None if that is unknown.
        owner: The class whose method this is.
    """

    parent: Scope | None = None
    names: dict[str, Kind | None] = field(default_factory=dict)
    owner: str | None = None

    def find(self, name: str) -> Kind | None:
        """Return what `name` stands for here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


@dataclass
class Knowledge:
    """What was found out about a program by reading it once, for when it is read again.

    Attributes:
        classes: Classes that come from the library, of all files: (name of the module, name of the
            class) -> what they are.
        attributes: (class, attribute) -> what was assigned to it.
        returned: Name of a function -> what it returns.
        arguments: (name of a function, number or name of a parameter) -> what it was called with.
        callbacks: Function -> the encoded flag of the worker, and how many parameters come before
            the worker and the job.
        texts: Whether some file has a data encoder, so that data of unknown clients is unknown.
    """

    classes: dict[tuple[str, str], Kind] = field(default_factory=dict)
    attributes: dict[tuple[str, str], set[Kind | None]] = field(default_factory=dict)
    returned: dict[str, set[Kind | None]] = field(default_factory=dict)
    arguments: dict[tuple[str, int | str], set[Kind | None]] = field(default_factory=dict)
    callbacks: dict[Function, tuple[bool, int]] = field(default_factory=dict)
    texts: bool = False


def only(kinds: set[Kind | None] | None) -> Kind | None:
    """Return the one kind that there is, if there is only one."""
    return next(iter(kinds)) if kinds is not None and len(kinds) == 1 else None


class Guess:
    """Says what an expression stands for."""

    def __init__(self, knowledge: Knowledge, family: str) -> None:
        self.knowledge = knowledge
        #: What is found out now; it takes the place of `knowledge` when this is over.
        self.learned = Knowledge(knowledge.classes, texts=knowledge.texts)
        #: ``gearman``, ``gear`` or ``aiogear``: where the methods' names come from.
        self.family = family
        self.scope = Scope()
        #: What is written in an ``isinstance`` around the line: the program looks by itself.
        self.guarded: list[set[str]] = []
        #: The names of all functions and methods of the file.
        self.defined: set[str] = set()
        #: Whether the file gives some object a data encoder, nobody knows which.
        self.all_encoded = False

    def kind(self, node: ast.AST | None) -> Kind | None:
        """Return what `node` stands for."""
        found = self._kind(node)
        if found is not None and found.what == "data" and (found.encoded or self.all_encoded):
            return None
        if found is not None and self.guarded and found.what in ("data", "name", "row"):
            assert isinstance(node, ast.expr)
            if any(ast.unparse(node) in guarded for guarded in self.guarded):
                return None
        return found

    def _kind(self, node: ast.AST | None) -> Kind | None:
        if isinstance(node, ast.Name):
            return self.scope.find(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.Await | ast.NamedExpr | ast.Starred):
            return self.kind(node.value)
        if isinstance(node, ast.IfExp):
            return self._either([node.body, node.orelse])
        if isinstance(node, ast.BoolOp):
            return self._either(node.values)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            return self._comprehension(node)
        if isinstance(node, ast.List | ast.Tuple | ast.Set) and node.elts:
            return self._list_of(only({self.kind(item) for item in node.elts}))
        return None

    def _either(self, nodes: list[ast.expr]) -> Kind | None:
        known = [node for node in nodes if not isinstance(node, ast.Constant)]
        return only({self.kind(node) for node in known}) if known else None

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Kind | None:
        inner = Scope(self.scope, owner=self.scope.owner)
        outer, self.scope = self.scope, inner
        try:
            for part in node.generators:
                self.assign(part.target, self.item(self.kind(part.iter)))
            return self._list_of(self.kind(node.elt))
        finally:
            self.scope = outer

    @staticmethod
    def _list_of(item: Kind | None) -> Kind | None:
        for many, one in KINDS_OF_ITEMS.items():
            if item is not None and one == item.what and many != "updates":
                return replace(item, what=many)
        return None

    @staticmethod
    def item(kind: Kind | None) -> Kind | None:
        """Return what the parts of something are."""
        if kind is None or kind.what not in KINDS_OF_ITEMS:
            return None
        return replace(kind, what=KINDS_OF_ITEMS[kind.what], name="")

    def _item(self, node: ast.Subscript) -> Kind | None:
        whole = self.kind(node.value)
        if whole is None:
            return None
        if isinstance(node.slice, ast.Slice):
            return whole if whole.what in KINDS_OF_ITEMS or whole.what in ("data", "name") else None
        return self.item(whole)

    def _attribute(self, node: ast.Attribute) -> Kind | None:
        return self._attribute_of(self.kind(node.value), node)

    def _attribute_of(self, owner: Kind | None, node: ast.Attribute) -> Kind | None:
        if owner is None:
            return None
        if owner.what == "module":
            return self.member(owner, node.attr)
        assigned = self._assigned(node)
        if assigned is not None:
            return assigned
        found = KINDS_OF_ATTRIBUTES.get((owner.what, node.attr))
        return None if found is None else replace(owner, what=found, name="")

    def _assigned(self, node: ast.Attribute) -> Kind | None:
        """What the program assigned to an attribute of its own."""
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            found = self.knowledge.attributes.get((self.scope.owner or "", node.attr))
            return only(found)
        return None

    def member(self, module: Kind, name: str) -> Kind | None:
        """Return what `name` is in a module of a library."""
        root = module.name.partition(".")[0]
        if root in OTHER_CLASSES:
            found = OTHER_CLASSES[root].get(name)
            return None if found is None else Kind("class", found)
        if name in CLASSES:
            return Kind("class", CLASSES[name])
        if name[:1].islower():
            return Kind("module", f"{module.name}.{name}")
        return None

    def _call(self, node: ast.Call) -> Kind | None:
        function = node.func
        if isinstance(function, ast.Name):
            if function.id in _KEEPERS and len(node.args) == 1:
                kind = self.kind(node.args[0])
                return kind if kind is not None and kind.what in KINDS_OF_ITEMS else None
            if function.id == "super":
                return self.scope.find("self")
        owner = None
        if isinstance(function, ast.Attribute):
            # Once: in a chain of calls, twice each time would be for ever.
            owner = self.kind(function.value)
            called = self._attribute_of(owner, function)
        else:
            called = self.kind(function)
        if called is not None and called.what == "class":
            return replace(called, what=called.name, name="")
        if isinstance(function, ast.Name):
            return only(self.knowledge.returned.get(function.id))
        if isinstance(function, ast.Attribute):
            return self._method(owner, function)
        return None

    def _method(self, owner: Kind | None, function: ast.Attribute) -> Kind | None:
        name = function.attr
        if name in self.defined and (owner is None or owner.own):
            return only(self.knowledge.returned.get(name))
        if owner is None:
            found = KINDS_OF_CALLS.get(("client", name))
            if self.family != "gearman" or found is None:
                return None
            # Nobody else calls a method so. Whose class it is is unknown.
            return Kind(found, encoded=self.knowledge.texts, own=True)
        found = KINDS_OF_CALLS.get((owner.what, name))
        return None if found is None else replace(owner, what=found, name="", own=False)

    # Assigning.

    def assign(self, target: ast.AST, kind: Kind | None, value: ast.expr | None = None) -> None:
        """Remember what a name stands for from now on."""
        if isinstance(target, ast.Name):
            self.scope.names[target.id] = kind
        elif isinstance(target, ast.Starred):
            self.assign(target.value, None)
        elif isinstance(target, ast.Tuple | ast.List):
            parts = self._parts(value, len(target.elts))
            for part, known in zip(target.elts, parts):
                self.assign(part, known)
        elif (
            not isinstance(value, ast.Constant)  # self.client = None
            and isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
            and self.scope.owner is not None
        ):
            key = self.scope.owner, target.attr
            self.learned.attributes.setdefault(key, set()).add(kind)

    def _parts(self, value: ast.expr | None, count: int) -> list[Kind | None]:
        """What the parts are of what is assigned to a tuple."""
        if isinstance(value, ast.Await):
            value = value.value
        if isinstance(value, ast.Tuple) and len(value.elts) == count:
            return [self.kind(part) for part in value.elts]
        made: Kind | None = None
        if isinstance(value, ast.Call) and value.args and count == 2:
            # asyncio: transport, protocol = await loop.create_connection(factory, host, port)
            function, factory = value.func, value.args[0]
            if isinstance(function, ast.Attribute) and function.attr == "create_connection":
                if isinstance(factory, ast.Lambda):
                    made = self.kind(factory.body)
                elif (found := self.kind(factory)) is not None and found.what == "class":
                    made = replace(found, what=found.name, name="")
        return [None] * (count - 1) + [made]

    def annotation(self, node: ast.expr | None) -> Kind | None:
        """Return what is annotated."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return None
        kind = self.kind(node) if isinstance(node, ast.Name | ast.Attribute) else None
        if kind is None or kind.what != "class":
            return None
        # A job in a program comes from a worker, and who knows what has decoded its data.
        unknown = kind.encoded or self.knowledge.texts
        return replace(kind, what=kind.name, name="", encoded=unknown)

    # Importing.

    def bind_import(self, node: ast.Import) -> None:
        """Remember what an import makes known."""
        for alias in node.names:
            root = alias.name.partition(".")[0]
            module = self._module(alias.name if alias.asname else root)
            self.scope.names[alias.asname or root] = module

    def bind_from(self, node: ast.ImportFrom) -> None:
        """Remember what a ``from ... import`` makes known."""
        module = None if node.level else self._module(node.module or "")
        for alias in node.names:
            if module is not None:
                found = self.member(module, alias.name)
            else:
                last = (node.module or "").rpartition(".")[2]
                found = self.knowledge.classes.get((last, alias.name))
            if alias.name != "*":
                self.scope.names[alias.asname or alias.name] = found
            elif module is not None and module.name.partition(".")[0] in GEARMAN_MODULES:
                for name, kind in CLASSES.items():
                    self.scope.names[name] = Kind("class", kind)

    @staticmethod
    def _module(name: str) -> Kind | None:
        root = name.partition(".")[0]
        return Kind("module", name) if root in ALL_MODULES else None


def family_of(tree: ast.Module) -> set[str]:
    """Return which of the libraries a file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        found |= {name.partition(".")[0] for name in names} & set(ALL_MODULES)
    return found


def is_of_gearman(modules: set[str]) -> bool:
    """Whether these are python-gearman and its forks."""
    return not modules.isdisjoint(GEARMAN_MODULES + DISTRIBUTIONS)


def positional(function: Function) -> tuple[int, int | None]:
    """Return how many arguments a function needs by position, and takes at most."""
    arguments = function.args
    most = len(parameters(function))
    least = most - len(arguments.defaults)
    if any(default is None for default in arguments.kw_defaults):
        return least, -1  # It needs one that nobody passes.
    return least, None if arguments.vararg is not None else most


def parameters(function: Function) -> list[ast.arg]:
    """Return the parameters that take arguments by position."""
    return [*function.args.posonlyargs, *function.args.args]


def functions_in(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a class or module, those inside of ``if`` and so on too."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif not isinstance(statement, ast.ClassDef):
            for name in ("body", "orelse", "finalbody", "handlers"):
                for inner in getattr(statement, name, []):
                    is_handler = isinstance(inner, ast.ExceptHandler)
                    yield from functions_in(inner.body if is_handler else [inner])

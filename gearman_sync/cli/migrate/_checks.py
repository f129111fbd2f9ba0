"""The application of the rules to one file."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, Final

import gearman_sync
from gearman_proto.printable import printable
from gearman_sync._install import TEXT_LIBRARIES

from . import _names as tables
from ._kinds import Function, Names, dotted, instance, is_path, joined, parameters
from ._rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._sources import Source

#: Maximum number of characters to show of a line.
_LONGEST: Final = 60
#: Rules for attributes: ``kind.name`` where the attribute is used, ``kind.name=`` where it is
#: assigned. ``?`` is an unknown object, and ``manager`` a client, worker or admin client.
_PATTERNS: Final = tables.table("""
    manager.establish_worker_connections manager.establish_worker_connections=: worker-poll
    ?.establish_worker_connections worker.poll_connections_until_stopped: worker-poll
    manager.request_to_rotating_connection_queue: request-queue
    ?.request_to_rotating_connection_queue: request-queue
    manager.wait_until_any_job_completed: wait-any
    manager.connection_class manager.connection_class=: connection-class
    manager.add_connection manager.add_ssl_connection manager.connection_list=: connection-list
    manager.current_connection manager.establish_admin_connection: admin-connection
    manager.job_request_class manager.job_request_class=: job-class
    job.to_dict: job-to-dict
    request.result= request.exception= request.status=: request-assigned
    request.job= request.gearman_job= request.data_updates= request.warning_updates=: request-fixed
    updates.append updates.appendleft updates.extend updates.clear: request-fixed
    name.decode: name-as-bytes
    manager.do_task manager.do_taskset ?.do_taskset manager.dispatch_background_task: api-1x
    ?.dispatch_background_task manager.register_function manager.register_class: api-1x
""")
#: Methods whose arguments have the type of the object: str for str, bytes for bytes.
_BOTH_METHODS: Final = re.compile(
    "count|[lr]?find|[lr]?index|[lr]?strip|r?partition|r?split|join|replace|(starts|ends)with"
)
_LOGS: Final = re.compile("critical|debug|error|exception|info|log|print|warn|warning")
#: The position of `background` among the arguments of a submit.
_PLACES: Final = {"submit_job": 5, "submit_multiple_jobs": 2}
_PATCHES: Final = frozenset({"patch", "import_module", "__import__", "setattr"})
_MANAGERS: Final[dict[str, type]] = {
    "client": gearman_sync.GearmanClient,
    "worker": gearman_sync.GearmanWorker,
    "admin": gearman_sync.GearmanAdminClient,
    "manager": object,
}
_OLD_BUILTINS: Final = frozenset({"basestring", "raw_input", "unichr", "unicode", "xrange"})
_OLD_METHODS: Final = {"has_key": 1, "iteritems": 0, "iterkeys": 0, "itervalues": 0}


class Checker(Names):
    """The checks of one file."""

    def __init__(self, source: Source, tree: ast.Module, *, is_encoded: bool) -> None:
        super().__init__(source, tree, is_encoded=is_encoded)
        self._source = source
        self._findings: dict[tuple[int | str, str, str], Finding] = {}
        for node in self.nodes:
            if isinstance(node, ast.Call) and _last(node.func) == "register_task":
                _, function = self._callback(node)
                if function is not None:
                    self.bind_callback(function)

    def run(self) -> Iterable[Finding]:
        """Return the findings. A line has at most one finding for each rule and advice."""
        # Later findings replace earlier ones, so the code of the outermost node is shown.
        for node in reversed(self.nodes):
            self._check(node)
        return self._findings.values()

    def _found(self, rule: str, node: Any, more: str = "", *, code: str = "") -> None:
        code = code or ast.get_source_segment(self._source.text, node) or ""
        code = printable(" ".join(code.split()), _LONGEST)
        path = str(self._source.path)
        line = code if rule == "name-taken" else node.lineno  # Report each name once.
        is_text = rule.startswith("data-") and not self.modules.isdisjoint(TEXT_LIBRARIES)
        self._findings[line, rule, more] = Finding(path, node.lineno, rule, code, more, is_text)

    def _check(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names, level=0):
                module = getattr(node, "module", "")
                for alias in names:
                    code = f"{module}.{alias.name}".lstrip(".")
                    self._name(joined(code), node, code, is_import=not module or "." in module)
            case ast.Attribute():
                self._attribute(node)
            case ast.ClassDef():
                self._class(node)
            case ast.Call():
                self._call(node)
            case ast.Compare(left=left, comparators=others):
                self._texts("data-compared", node, [left, *others])
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                self._texts("data-as-text", node, [left, right])
            case ast.AugAssign(target=target, value=value):
                self._texts("data-as-text", node, [target, value])
            case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str(text)), right=right):
                if "%s" in text and "data" in map(self.kind, _elements(right)):
                    self._shown(node)
            case ast.FormattedValue(conversion=-1, value=value) if self.kind(value) == "data":
                self._shown(self.parents[node])
            case ast.Name(id=name) if name in _OLD_BUILTINS - self.bound and self.modules:
                self._found("python-2", node)
            case ast.Constant(value="last_time_received") if self.modules:
                self._found("status-last-time", node)

    def _texts(self, rule: str, node: ast.AST, parts: list[ast.expr]) -> None:
        kinds = {self.kind(part) for part in parts}
        elements = [each for part in parts for each in _elements(part)]
        has_bytes = any(isinstance(getattr(each, "value", 0), bytes) for each in elements)
        if "data" in kinds and any(map(_is_text, elements)):
            self._found(rule, node)
        elif "name" in kinds and isinstance(node, ast.Compare) and has_bytes:
            self._found("name-as-bytes", node)

    def _shown(self, node: ast.AST) -> None:
        outer = self.parents[node]
        is_logged = isinstance(outer, ast.Call) and _LOGS.fullmatch(_last(outer.func))
        if not is_logged and not isinstance(self.parents.get(outer), ast.Raise):
            self._found("data-shown", node)

    def _name(self, path: str, node: Any, code: str = "", *, is_import: bool = False) -> None:
        """Check a dotted name that could belong to a library."""
        root, *rest = path.lstrip("+").split(".")
        first, last = (rest[0], rest[-1]) if rest else ("", "")
        if root in tables.OTHERS:
            advice = tables.GEAR.get(last) if root == "gear" else None
            self._found(root, node, advice or f"see {tables.PAGE}", code=code)
        elif root in tables.DISTRIBUTIONS:
            self._found("import-distribution", node, code=root)
        elif root not in tables.GEARMAN or first in ("", "*"):
            return
        elif inner := [name for name in rest if name in tables.INNER_MODULES]:
            self._found("inner-used", node, tables.INNER_MODULES[inner[0]], code=code)
        elif advice := _advice(tables.INNER_PARTS, last):
            self._found("inner-used", node, advice, code=code)
        elif "GearmanConnection" in rest or last == "connection_class":
            self._found("connection-class", node, code=code)
        elif first in tables.OLD_NAMES:
            self._found("api-1x", node, tables.OLD_NAMES[first], code=code)
        elif first in tables.MODULES and (is_import or not hasattr(gearman_sync, first)):
            self._found("import-module", node, tables.MODULES[first], code=f"{root}.{first}")
        elif not hasattr(gearman_sync, first):
            self._found("import-unknown", node, code=code)

    def _attribute(self, node: ast.Attribute) -> None:
        owner, name, outer = self.kind(node.value), node.attr, self.parents[node]
        what, is_assigned = owner.lstrip("+"), not isinstance(node.ctx, ast.Load)
        if is_path(owner):
            is_inner = isinstance(outer, ast.Attribute) and is_path(self.kind(outer))
            if not is_inner and not (owner[0] == "+" and dotted(node.value) == "self"):
                self._name(f"{owner}.{name}", node)
            return
        is_super = dotted(getattr(node.value, "func", None)) == "super"
        if not self.modules & set(tables.GEARMAN) or (name in self.functions and not is_super):
            return
        general = "manager" if what in _MANAGERS else what or "?"
        pattern = name + "=" * is_assigned
        rule = _PATTERNS.get(f"{general}.{pattern}") or _PATTERNS.get(f"{what}.{pattern}")
        advice = _advice(tables.INNER_PARTS, name, is_known=what in _MANAGERS)
        if rule:
            self._found(rule, node, tables.OLD_NAMES.get(name, ""))
        elif advice and general in ("manager", "?"):
            self._found("inner-used", node, advice)
        elif is_assigned and dotted(node.value) == "self":
            self._taken(what, name, node, dotted(node))

    def _taken(self, what: str, name: str, node: ast.AST, code: str) -> None:
        if hasattr(_MANAGERS.get(what, object), name) and not tables.OVERRIDDEN.fullmatch(name):
            self._found("name-taken", node, code=code)

    def _class(self, node: ast.ClassDef) -> None:
        what = instance(self.kind(node)).lstrip("+")
        for each in node.body if what.startswith("gear.") else ():
            if isinstance(each, ast.FunctionDef) and each.name in tables.GEAR:
                self._name(f"gear.{each.name}", each, f"def {each.name}")
        for each in node.body if what in _MANAGERS else ():
            name = code = dotted(each.targets[0]) if isinstance(each, ast.Assign) else ""
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                name, code = each.name, f"def {each.name}"
            if advice := _advice(tables.INNER_PARTS, name):
                self._found("inner-overridden", each, advice, code=code)
            elif rule := _PATTERNS.get(f"manager.{name}=", ""):
                self._found(rule, each, code=code)
            elif name:
                self._taken(what, name, each, code)

    def _call(self, node: ast.Call) -> None:
        name, path, arguments = _last(node.func), dotted(node.func), node.args
        owner = getattr(node.func, "value", node)
        given = {keyword.arg for keyword in node.keywords}
        if self.modules and owner is not node and _OLD_METHODS.get(name) == len(arguments):
            self._found("python-2", node)
        has_data = "data" in map(self.kind, arguments)
        has_text = any(map(_is_text, arguments))
        if name in _PATCHES and arguments and isinstance(arguments[0], ast.Constant):
            # patch("gearman.client.GearmanClient")
            self._name(joined(str(arguments[0].value)), arguments[0], is_import=True)
        elif name == "register_task" and self.modules:
            self._register(node)
        elif "py3gearman" in self.modules and (place := _PLACES.get(name)):
            if len(arguments) < place and not given & {"background", None}:
                self._found("background-default", node)
        elif path in ("json.dump", "json.dumps"):
            parts = {self.kind(part) for each in arguments[:1] for part in _elements(each)}
            if parts & {"data", "rows"}:
                self._found("data-as-text" if "data" in parts else "row-is-dict", node)
        elif (
            self.kind(owner) == "data"
            and (name == "encode" or (_BOTH_METHODS.fullmatch(name) and has_text))
        ) or (has_data and has_text and path.startswith(("re.", "os.path."))):
            self._found("data-as-text", node)
        elif has_data and (
            (path == "str" and len(arguments) == 1) or (name == "format" and _is_text(owner))
        ):
            self._shown(node)

    def _callback(self, node: ast.Call) -> tuple[ast.expr, Function | None]:
        """Return a callback, and its function if known."""
        given = [each.value for each in node.keywords if "callback" in str(each.arg)]
        found = [*given, *node.args[1:], node][0]
        if isinstance(found, ast.Lambda):
            return found, found
        functions = self.functions.get(_last(found), [])
        return found, functions[0] if len(functions) == 1 else None

    def _register(self, node: ast.Call) -> None:
        if any(keyword.arg == "callback_function" for keyword in node.keywords):
            self._found("register-keyword", node, code="callback_function=")
        callback, function = self._callback(node)
        if isinstance(function, ast.AsyncFunctionDef):
            self._found("callback-async", callback)
        if function is None or getattr(function, "decorator_list", []):
            return
        arguments, most = function.args, len(parameters(function))
        is_wrong = most - len(arguments.defaults) > 2 or (most < 1 and arguments.vararg is None)
        if is_wrong or None in arguments.kw_defaults:
            self._found("callback-parameters", callback)


def _advice(names: dict[str, str], name: str, *, is_known: bool = True) -> str:
    return names.get(name) or (names.get(f".{name}", "") if is_known else "")


def _last(node: ast.expr) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _is_text(node: ast.expr) -> bool:
    is_made = isinstance(node, ast.Call) and dotted(node.func) == "str"
    return is_made or isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", 0), str)


def _elements(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Dict):
        return node.values
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]

"""The rules for programs of python-gearman and of its forks."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

import gearman_sync
from gearman_proto.jobs.submitting import JOB_KEYS

from ._families import (
    COMMON_PARTS,
    DISTRIBUTIONS,
    GEARMAN_MODULES,
    INNER_CLASSES,
    INNER_MODULES,
    INNER_PARTS,
    MODULES,
    OLD_MODULES,
    OLD_NAMES,
    PLAIN_MODULES,
    WORKER_POLL,
)
from ._kinds import CLASSES, MANAGERS, Function, Kind, functions_in, positional

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._checks import Checker

_QUEUE: Final = "request_to_rotating_connection_queue"
_LIST_CHANGES: Final = frozenset({"append", "clear", "extend", "insert", "pop", "remove"})
_DICT_CHANGES: Final = frozenset({"copy", "pop", "popitem", "setdefault", "update", "clear"})
_QUEUE_CHANGES: Final = frozenset({"append", "appendleft", "clear", "extend", "extendleft"})
_SUBMITS: Final = frozenset({"submit_job", "submit_multiple_jobs", "submit_multiple_requests"})
#: What bytes do not have, and str has.
_TEXT_METHODS: Final = frozenset(
    {"casefold", "encode", "format", "format_map", "isdecimal", "isidentifier", "isnumeric"}
    | {"isprintable"}
)
#: What takes str of str, and bytes of bytes.
_BOTH_METHODS: Final = frozenset(
    {"count", "endswith", "find", "index", "join", "lstrip", "partition", "removeprefix"}
    | {"removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split"}
    | {"startswith", "strip"}
)
#: Functions that take str, or a file that does, and no bytes.
_TEXT_FUNCTIONS: Final = frozenset({"StringIO", "strptime", "fromisoformat", "UUID"})
_PATTERNS: Final = frozenset(
    {"compile", "findall", "finditer", "fullmatch", "match", "search", "split"}
)
_LOGS: Final = frozenset(
    {"critical", "debug", "error", "exception", "info", "log", "print", "warn", "warning"}
)
_PATCHES: Final = frozenset({"patch", "import_module", "__import__", "setattr"})


@functools.cache
def here(kind: str) -> frozenset[str]:
    """Return what objects of a kind have in this library."""
    job = gearman_sync.GearmanJob(None, None, "task", None, b"")
    objects: dict[str, Any] = {
        "client": gearman_sync.GearmanClient([]),
        "worker": gearman_sync.GearmanWorker([]),
        "admin": gearman_sync.GearmanAdminClient(),
        "request": gearman_sync.GearmanJobRequest(job),
        "submitted": job,
    }
    return frozenset(dir(objects[kind])) if kind in objects else frozenset()


@functools.cache
def arguments(kind: str, method: str) -> frozenset[str] | None:
    """Return the names of the arguments of a method, or of a class; None if that is unknown."""
    cls = next((name for name, each in CLASSES.items() if each == kind), "")
    found = getattr(gearman_sync, cls, None)
    if method:
        found = getattr(found, method, None)
    if not callable(found):
        return None
    return frozenset(inspect.signature(found).parameters)


def check(checker: Checker, node: ast.AST) -> None:
    """Say what the rules have to say of one node."""
    if node not in checker.done and (rule := _CHECKS.get(type(node))) is not None:
        rule(checker, node)


# Importing.


def _import(checker: Checker, node: ast.Import) -> None:
    for alias in node.names:
        root, _, rest = alias.name.partition(".")
        if root in DISTRIBUTIONS:
            checker.found("import-distribution", node, code=root)
        elif root in GEARMAN_MODULES and rest:
            _module(checker, node, root, rest)


def _module(checker: Checker, node: ast.AST, root: str, name: str) -> None:
    first = name.partition(".")[0]
    code = f"{root}.{first}"
    if first in MODULES:
        more = MODULES[first]
        if isinstance(node, ast.Import) and first in PLAIN_MODULES:
            more = f"import gearman_sync as {root}, which has {code}"
        checker.found("import-module", node, more, code=code)
    elif first in INNER_MODULES:
        checker.found("import-inner", node, INNER_MODULES[first], code=code)
    elif first in OLD_MODULES:
        checker.found("api-1x", node, OLD_MODULES[first], code=code)
    else:
        checker.found("import-unknown", node, code=code)


def _import_from(checker: Checker, node: ast.ImportFrom) -> None:
    root, _, module = (node.module or "").partition(".")
    if node.level or root not in (*GEARMAN_MODULES, *DISTRIBUTIONS):
        return
    if root in DISTRIBUTIONS:
        checker.found("import-distribution", node, code=root)
        return
    if module:
        _module(checker, node, root, module)
    names = [alias.name for alias in node.names if alias.name != "*"]
    for name in names:
        code = f"{node.module}.{name}"
        if name in INNER_CLASSES:
            checker.found("import-inner", node, INNER_CLASSES[name], code=code)
        elif name == "GearmanConnection":
            checker.found("connection-class", node, code=code)
        elif not module and name in OLD_NAMES:
            checker.found("api-1x", node, OLD_NAMES[name], code=code)
        elif not module and (name in MODULES or name not in gearman_sync.__all__):
            if name not in PLAIN_MODULES:
                _module(checker, node, root, name)
        elif module in ("constants", "errors") and not hasattr(getattr(gearman_sync, module), name):
            checker.found("import-unknown", node, code=code)


def _text(checker: Checker, node: ast.Call) -> None:
    """A module that is named in a text: patch("gearman.client.GearmanClient")."""
    if not node.args or _last(node.func) not in _PATCHES:
        return
    text = getattr(node.args[0], "value", None)
    if not isinstance(text, str):
        return
    root, _, rest = text.partition(".")
    if root not in GEARMAN_MODULES or not rest:
        return
    parts = rest.split(".")
    inner = [part for part in parts if part in INNER_PARTS or part in INNER_CLASSES]
    if inner or parts[0] in INNER_MODULES:
        more = {**INNER_MODULES, **INNER_PARTS, **INNER_CLASSES}[inner[0] if inner else parts[0]]
        checker.found("text-inner", node.args[0], more)
    elif parts[0] in MODULES:
        checker.found("text-module", node.args[0], MODULES[parts[0]])


# Attributes.


def _attribute(checker: Checker, node: ast.Attribute) -> None:
    owner = checker.kind(node.value)
    name = node.attr
    if owner is None:
        _unknown_attribute(checker, node)
    elif owner.what == "module":
        _module_attribute(checker, node, owner)
    elif owner.what in MANAGERS:
        _manager_attribute(checker, node, owner)
    elif owner.what == "class" and owner.name in MANAGERS:
        if name in INNER_PARTS:
            checker.found("inner-used", node, INNER_PARTS[name])
    elif owner.what == "connection":
        if name in INNER_PARTS:
            checker.found("inner-used", node, INNER_PARTS[name])
        elif name in ("close", "get_address"):
            checker.found("connection-parts", node)
    elif owner.what in ("job", "submitted") and name == "to_dict":
        checker.found("job-to-dict", node)
    elif owner.what == "request" and not owner.own and isinstance(node.ctx, ast.Load):
        _missing(checker, node, owner)
    if isinstance(node.ctx, ast.Store) and owner is not None:
        _assigned(checker, node, owner)


def _unknown_attribute(checker: Checker, node: ast.Attribute) -> None:
    name = node.attr
    if name in INNER_PARTS and name not in COMMON_PARTS:
        checker.found("inner-used", node, INNER_PARTS[name])
    elif name == _QUEUE:
        checker.found("request-queue", node)
    elif name == "establish_worker_connections":
        checker.found("worker-poll", node, WORKER_POLL[name])
    elif name in ("do_taskset", "dispatch_background_task"):
        checker.found("api-1x", node, OLD_NAMES[name])


def _module_attribute(checker: Checker, node: ast.Attribute, owner: Kind) -> None:
    name = node.attr
    root, _, inside = owner.name.partition(".")
    if root not in GEARMAN_MODULES:
        return
    if name == "GearmanConnection":
        checker.found("connection-class", node)
        checker.done.add(node.value)
    elif name in INNER_CLASSES:
        checker.found("inner-used", node, INNER_CLASSES[name])
        checker.done.add(node.value)
    elif not inside and name in OLD_NAMES:
        checker.found("api-1x", node, OLD_NAMES[name])
    elif not inside and name in {**MODULES, **INNER_MODULES, **OLD_MODULES}:
        if name not in PLAIN_MODULES:
            _module(checker, node, root, name)
    elif not inside and isinstance(node.ctx, ast.Load) and name not in gearman_sync.__all__:
        checker.found("attribute-unknown", node)


def _manager_attribute(checker: Checker, node: ast.Attribute, owner: Kind) -> None:
    name = node.attr
    if name == "job_request_class" or (name == "job_class" and isinstance(node.ctx, ast.Load)):
        checker.found("job-class", node)
    elif name in INNER_PARTS:
        checker.found("inner-used", node, INNER_PARTS[name])
    elif owner.what in ("worker", "manager") and name in WORKER_POLL:
        checker.found("worker-poll", node, WORKER_POLL[name])
    elif name == _QUEUE:
        checker.found("request-queue", node)
    elif name == "wait_until_any_job_completed" and name not in checker.defined:
        checker.found("wait-any", node)
    elif name == "connection_class":
        checker.found("connection-class", node)
    elif name in ("add_connection", "add_ssl_connection"):
        checker.found("connection-list", node)
    elif owner.what == "admin" and name in ("current_connection", "establish_admin_connection"):
        checker.found("admin-connection", node)
    elif name in OLD_NAMES:
        checker.found("api-1x", node, OLD_NAMES[name])
    elif not owner.own and isinstance(node.ctx, ast.Load):
        _missing(checker, node, owner)


def _missing(checker: Checker, node: ast.Attribute, owner: Kind) -> None:
    known = here(owner.what)
    if known and node.attr not in known and node.attr not in checker.assigned:
        checker.found("attribute-unknown", node)


def _assigned(checker: Checker, node: ast.Attribute, owner: Kind) -> None:
    name = node.attr
    if owner.what == "request":
        if name in ("result", "exception", "status"):
            checker.found("request-assigned", node)
        elif name in ("job", "gearman_job"):
            checker.found("request-job-assigned", node)
        elif name in ("data_updates", "warning_updates", "status_updates"):
            checker.found("updates-changed", node)
    elif owner.what in MANAGERS and name == "connection_list":
        checker.found("connection-list", node)
    elif owner.what == "module" and owner.name.partition(".")[0] in GEARMAN_MODULES:
        checker.found("monkey-patch", node)
    elif owner.what == "class" and not owner.own and node not in checker.done:
        if owner.name == "connection" or name == "connection_class":
            checker.found("connection-class", node)
        elif name in WORKER_POLL:
            checker.found("worker-poll", node, WORKER_POLL[name])
        elif name != "data_encoder" and name not in here(owner.name):
            checker.found("monkey-patch", node)


# Classes.


def _class(checker: Checker, node: ast.ClassDef) -> None:
    kinds = [kind for base in node.bases if (kind := checker.kind(base)) is not None]
    bases = {kind.name for kind in kinds if kind.what == "class"}
    if "connection" in bases:
        checker.found("connection-class", node, code=f"class {node.name}")
    if not bases & {*MANAGERS, "connection"}:
        return
    functions = list(functions_in(node.body))
    # The library's own work() does not call them.
    has_work = any(function.name == "work" for function in functions)
    for function in functions:
        name, code = function.name, f"def {function.name}"
        if name in INNER_PARTS:
            checker.found("inner-overridden", function, INNER_PARTS[name], code=code)
        elif name in WORKER_POLL and "worker" in bases:
            rule = "worker-poll" if has_work else "inner-overridden"
            checker.found(rule, function, WORKER_POLL[name], code=code)
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if name in INNER_PARTS:
                checker.found("inner-overridden", statement, INNER_PARTS[name])
            elif name == "connection_class":
                checker.found("connection-class", statement)
            elif name == "job_request_class":
                checker.found("job-class", statement)


# Calls.


def _call(checker: Checker, node: ast.Call) -> None:
    _text(checker, node)
    called = checker.kind(node.func)
    if called is not None and called.what == "class":
        _make(checker, node, called)
    if isinstance(node.func, ast.Attribute):
        _method(checker, node, node.func)
    _function(checker, node)


def _make(checker: Checker, node: ast.Call, called: Kind) -> None:
    if called.own:
        return
    _check_arguments(checker, node, arguments(called.name, ""))
    if called.name == "job":
        task = node.args[2] if len(node.args) > 2 else _keyword(node, "task")
        if isinstance(task, ast.Constant) and task.value is None:
            checker.found("job-empty", node)
    elif called.name == "request":
        attempts = _keyword(node, "max_attempts")
        job = node.args[0] if node.args else _keyword(node, "gearman_job")
        is_mock = job is not None and "mock" in ast.unparse(job).lower()
        if is_mock or (isinstance(attempts, ast.Constant) and attempts.value == 0):
            checker.found("request-of-anything", node)


def _check_arguments(checker: Checker, node: ast.Call, known: frozenset[str] | None) -> None:
    for keyword in node.keywords:
        if known is not None and keyword.arg is not None and keyword.arg not in known:
            checker.found("argument-unknown", keyword, code=f"{keyword.arg}=")


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in node.keywords if each.arg == name), None)


def _method(checker: Checker, node: ast.Call, function: ast.Attribute) -> None:
    owner = checker.kind(function.value)
    name = function.attr
    what = None if owner is None else owner.what
    if name == "register_task":
        _register(checker, node, owner)
    elif what in ("client", "worker", "admin"):
        assert owner is not None
        if not (owner.own and name in checker.defined):
            _check_arguments(checker, node, arguments(owner.what, name))
    if name in _SUBMITS:
        _submit(checker, node, name)
    if name in _LIST_CHANGES and what == "connections":
        checker.found("connection-list", node)
    elif name in _QUEUE_CHANGES and what == "updates":
        checker.found("updates-changed", node)
    elif name in _DICT_CHANGES and what in ("row", "job-row"):
        checker.found("row-is-dict", node)
    elif what == "pid":
        checker.found("pid-as-text", node)
    elif name == "send_maxqueue" and what == "admin":
        size = node.args[1] if len(node.args) > 1 else _keyword(node, "max_size")
        if isinstance(size, ast.Constant) and isinstance(size.value, str):
            checker.found("maxqueue-as-text", size)
    elif what == "name":
        if name == "decode":
            checker.found("name-as-bytes", node)
        elif name in _BOTH_METHODS and _has_bytes(node.args):
            checker.found("name-with-bytes", node)
    elif what == "data" and (
        name in _TEXT_METHODS or (name in _BOTH_METHODS and _has_text(node.args))
    ):
        checker.found("data-as-text", node)
    elif name == "get" and node.args and _is(node.args[0], "last_time_received"):
        checker.found("status-last-time", node)


def _register(checker: Checker, node: ast.Call, owner: Kind | None) -> None:
    for keyword in node.keywords:
        if keyword.arg == "callback_function":
            checker.found("register-keyword", keyword, code="callback_function=")
    callback = _keyword(node, "callback_function") or _keyword(node, "callback")
    if callback is None and len(node.args) > 1:
        callback = node.args[1]
    if isinstance(callback, ast.Name) and callback.id not in checker.functions:
        values = _values_of(checker.function, callback.id)
        if len(values) == 1 and isinstance(values[0], ast.expr):
            callback = values[0]
    before = 0
    while isinstance(callback, ast.Call) and ast.unparse(callback.func).endswith("partial"):
        if callback.keywords or not callback.args:
            return
        before += len(callback.args) - 1
        callback = callback.args[0]
    function = _resolve(checker, callback)
    if function is None or callback is None:
        return
    encoded = checker.knowledge.texts if owner is None else owner.encoded
    checker.learned.callbacks[function] = (encoded, before)
    if isinstance(function, ast.AsyncFunctionDef):
        checker.found("callback-async", callback)
    if not isinstance(function, ast.Lambda) and function.decorator_list:
        return
    least, most = positional(function)
    given = 2 + before + checker.is_method(function)
    if least > given or (most is not None and most < given):
        code = "the lambda" if isinstance(function, ast.Lambda) else ast.unparse(callback)
        checker.found("callback-parameters", callback, code=code)


def _resolve(checker: Checker, callback: ast.expr | None) -> Function | None:
    """The function that is passed, if it is in this file."""
    if isinstance(callback, ast.Lambda):
        return callback
    if isinstance(callback, ast.Name):
        found = [each for each, owner in checker.functions.get(callback.id, []) if owner is None]
    elif isinstance(callback, ast.Attribute) and ast.unparse(callback.value) in ("self", "cls"):
        owner = checker.scope.owner
        found = [each for each, of in checker.functions.get(callback.attr, []) if of == owner]
    else:
        return None
    return found[0] if len(found) == 1 else None


def _submit(checker: Checker, node: ast.Call, name: str) -> None:
    unique = node.args[2] if len(node.args) > 2 else _keyword(node, "unique")
    if name == "submit_job" and isinstance(unique, ast.Constant) and unique.value is False:
        checker.found("unique-false", node, code="unique=False")
    if name == "submit_multiple_jobs":
        jobs = node.args[0] if node.args else _keyword(node, "jobs_to_submit")
        if jobs is not None:
            _check_jobs(checker, jobs)
    place = 4 if name == "submit_job" else 1
    if (
        "py3gearman" in checker.modules
        and name != "submit_multiple_requests"
        and _keyword(node, "background") is None
        and len(node.args) <= place
        and all(keyword.arg is not None for keyword in node.keywords)
    ):
        checker.found("background-default", node)


def _check_jobs(checker: Checker, jobs: ast.expr) -> None:
    places: list[ast.AST] = [jobs]
    if isinstance(jobs, ast.Name):
        places = _values_of(checker.function, jobs.id)
    for place in places:
        for part in ast.walk(place):
            keys = _keys(part)
            for key in sorted(keys - JOB_KEYS) if {"task", "data"} <= keys else ():
                checker.found("job-keys", part, code=repr(key))


def _values_of(function: ast.AST, name: str) -> list[ast.AST]:
    """What is assigned to a name, or put into it, in a function."""
    values: list[ast.AST] = []
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        if isinstance(node, ast.Assign | ast.AugAssign) and any(
            _named(target, name) for target in targets
        ):
            values.append(node.value)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("append", "extend", "add", "insert")
            and _named(node.func.value, name)
        ):
            values += node.args
    return values


def _named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _keys(node: ast.AST) -> set[str]:
    """The keys of a dict that is written out; none if there may be others."""
    if isinstance(node, ast.Dict):
        keys = [getattr(key, "value", None) for key in node.keys]
        texts = {key for key in keys if isinstance(key, str)}
        return texts if len(texts) == len(keys) else set()
    if isinstance(node, ast.Call) and _named(node.func, "dict") and not node.args:
        return {keyword.arg for keyword in node.keywords if keyword.arg is not None}
    return set()


def _function(checker: Checker, node: ast.Call) -> None:
    name = _last(node.func)
    arguments = node.args
    kinds = {kind.what for each in arguments if (kind := checker.kind(each)) is not None}
    if name in _LOGS:
        checker.read_by_people.update(arguments)
    if _named(node.func, "isinstance") and len(arguments) == 2 and kinds & {"row", "job-row"}:
        if ast.unparse(arguments[1]) == "dict":
            checker.found("row-is-dict", node)
    elif name in ("dumps", "dump") and "json" in ast.unparse(node.func):
        if kinds & {"row", "rows", "job-row", "job-rows"}:
            checker.found("row-is-dict", node)
        elif arguments and _has_data(checker, arguments[0]):
            checker.found("data-to-json", node)
    elif "data" in kinds:
        first_is_text = bool(arguments) and _is_text(arguments[0])
        is_pattern = name in _PATTERNS and ast.unparse(node.func).startswith("re.")
        if name == "str" and len(arguments) == 1 and not node.keywords:
            _shown(checker, node)
        elif name == "format" and isinstance(node.func, ast.Attribute):
            if _is_text(node.func.value):
                _shown(checker, node)
        elif name in _TEXT_FUNCTIONS or (first_is_text and is_pattern):
            checker.found("data-as-text", node)
        elif (name == "bytes" and len(arguments) == 2) or (
            name == "join" and _has_text(arguments) and "path" in ast.unparse(node.func)
        ):
            checker.found("data-joined", node)


def _has_data(checker: Checker, node: ast.AST) -> bool:
    """Whether data is what is written, or in what is written out there."""
    if isinstance(node, ast.Dict):
        return any(_has_data(checker, value) for value in node.values)
    if isinstance(node, ast.List | ast.Tuple):
        return any(_has_data(checker, value) for value in node.elts)
    kind = checker.kind(node)
    return kind is not None and kind.what == "data"


# Expressions.


def _compare(checker: Checker, node: ast.Compare) -> None:
    sides = [node.left, *node.comparators]
    kinds = {kind.what for side in sides if (kind := checker.kind(side)) is not None}
    if any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
        # "x" in data, and data in ("x", "y").
        texts = _has_text(sides) or any(_has_text(_parts(side)) for side in node.comparators)
    else:
        texts = _has_text(sides)
    items = [_indexed(checker, side) for side in sides]
    if texts and ("data" in kinds or any(items)):
        checker.found("data-compared", node)
    elif "name" in kinds and (
        _has_bytes(sides) or any(_has_bytes(_parts(side)) for side in node.comparators)
    ):
        checker.found("name-as-bytes", node)
    elif _has_text(sides) and any(_is_file_descriptor(checker, side) for side in sides):
        checker.found("row-file-descriptor", node)


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []


def _indexed(checker: Checker, node: ast.expr) -> bool:
    """Whether this is a single byte of data: a number."""
    return (
        isinstance(node, ast.Subscript)
        and (kind := checker.kind(node.value)) is not None
        and kind.what == "data"
        and not isinstance(node.slice, ast.Slice)
    )


def _is_file_descriptor(checker: Checker, node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and _is(node.slice, "file_descriptor")
        and (kind := checker.kind(node.value)) is not None
        and kind.what == "row"
    )


def _operation(checker: Checker, node: ast.BinOp) -> None:
    left, right = checker.kind(node.left), checker.kind(node.right)
    kinds = {kind.what for kind in (left, right) if kind is not None}
    sides = [node.left, node.right]
    if isinstance(node.op, ast.Add):
        if "data" in kinds and _has_text(sides):
            checker.found("data-joined", node)
        elif "name" in kinds and _has_bytes(sides):
            checker.found("name-with-bytes", node)
    elif isinstance(node.op, ast.Mod):
        filled = _parts(node.right) or [node.right]
        whats = {kind.what for each in filled if (kind := checker.kind(each)) is not None}
        text = getattr(node.left, "value", None)
        if "data" in whats and isinstance(text, str) and "%s" in text:
            _shown(checker, node)
        elif "name" in whats and isinstance(text, bytes):
            checker.found("name-with-bytes", node)


def _augmented(checker: Checker, node: ast.AugAssign) -> None:
    target = checker.kind(node.target)
    what = None if target is None or not isinstance(node.op, ast.Add) else target.what
    if what == "data" and _is_text(node.value):
        checker.found("data-joined", node)
    elif what == "connections":
        checker.found("connection-list", node)


def _template(checker: Checker, node: ast.JoinedStr) -> None:
    for part in node.values:
        if isinstance(part, ast.FormattedValue) and part.conversion == -1:
            kind = checker.kind(part.value)
            if kind is not None and kind.what == "data":
                _shown(checker, node)
                return


def _shown(checker: Checker, node: ast.expr) -> None:
    if node not in checker.read_by_people:
        checker.found("data-shown", node)


def _subscript(checker: Checker, node: ast.Subscript) -> None:
    if _is(node.slice, "last_time_received"):
        checker.found("status-last-time", node)
        return
    kind = checker.kind(node.value)
    if kind is None:
        return
    if kind.what in ("row", "job-row") and not isinstance(node.ctx, ast.Load):
        checker.found("row-is-dict", node)
    elif (
        kind.what == "job-row"
        and any(_is(node.slice, key) for key in ("queued", "canceled", "enabled"))
    ) or (kind.what == "unique-row" and _is(node.slice, "unique")):
        checker.found("row-job-keys", node)


def _try(checker: Checker, node: ast.Try) -> None:
    submits = any(
        isinstance(each, ast.Attribute) and each.attr in _SUBMITS
        for statement in node.body
        for each in ast.walk(statement)
    )
    for handler in node.handlers if submits else ():
        names = _parts(handler.type) or [handler.type] if handler.type is not None else []
        if any(_named(name, "AssertionError") for name in names):
            checker.found("assertion-caught", handler, code="AssertionError")


def _last(node: ast.expr) -> str:
    """The name of a function, without what it is of."""
    name = getattr(node, "attr", getattr(node, "id", ""))
    assert isinstance(name, str)
    return name


def _is(node: ast.expr, value: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _is_text(node: ast.expr) -> bool:
    """Whether this is written as str."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.Call):
        return _named(node.func, "str")
    if isinstance(node, ast.Tuple):  # startswith(("a", "b"))
        return _has_text(node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _has_text(nodes: list[ast.expr]) -> bool:
    return any(_is_text(node) for node in nodes)


def _has_bytes(nodes: list[ast.expr]) -> bool:
    return any(isinstance(each, ast.Constant) and isinstance(each.value, bytes) for each in nodes)


_CHECKS: Final[dict[type[ast.AST], Callable[[Checker, Any], None]]] = {
    ast.Attribute: _attribute,
    ast.AugAssign: _augmented,
    ast.BinOp: _operation,
    ast.Call: _call,
    ast.ClassDef: _class,
    ast.Compare: _compare,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.JoinedStr: _template,
    ast.Subscript: _subscript,
    ast.Try: _try,
}

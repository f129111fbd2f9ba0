"""A job as applications see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from gearman_proto.names import to_text

if TYPE_CHECKING:
    from typing import Self

    from gearman_proto.address import ServerAddress


class Missing:
    """A sentinel for a missing value. The class itself is the sentinel; it is never instantiated.

    Pickling or copying a class returns the same class, so code can compare by identity.
    """


class Fields:
    """What a job is made of, in the one place where it is kept."""

    __slots__ = ("connection", "data", "handle", "task", "unique")

    connection: ServerAddress | None
    handle: str | None
    task: str
    unique: str | None
    data: Any


_T = TypeVar("_T")


class _Forwarded(Generic[_T]):
    """An attribute of a job that is kept in its fields."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, job: None, owner: type) -> Self: ...
    @overload
    def __get__(self, job: GearmanJob, owner: type) -> _T: ...
    def __get__(self, job: GearmanJob | None, owner: type) -> Any:
        return self if job is None else getattr(job._fields, self._name)

    def __set__(self, job: GearmanJob, value: _T) -> None:
        setattr(job._fields, self._name, value)


class GearmanJob:
    """What is to be done (python-gearman: `gearman.job.GearmanJob`).

    A request keeps all this itself, so that a hundred thousand requests are not two hundred
    thousand objects; its `job` is a view of it, made when somebody looks. A job that a request is
    made of becomes such a view.

    Attributes:
        connection: The address of the server that has the job, or None.
        handle: The server's name for it, or None.
        task: The function that it is for.
        unique: The submitter's name for it, or None.
        data: What to do it with, before encoding.
    """

    __slots__ = ("__dict__", "__weakref__", "_fields")

    connection: _Forwarded[ServerAddress | None] = _Forwarded()
    handle: _Forwarded[str | None] = _Forwarded()
    task: _Forwarded[str] = _Forwarded()
    unique: _Forwarded[str | None] = _Forwarded()
    data: _Forwarded[Any] = _Forwarded()

    def __init__(
        self,
        connection: ServerAddress | None,
        handle: str | bytes | None,
        task: str | bytes,
        unique: str | bytes | None,
        data: Any,
    ) -> None:
        fields = Fields()
        fields.connection = connection
        fields.handle = None if handle is None else to_text(handle, "handle")
        fields.task = to_text(task, "task")
        fields.unique = None if unique is None else to_text(unique, "unique")
        fields.data = data
        self.keep_in(fields)

    @classmethod
    def view_of(cls, fields: Fields) -> GearmanJob:
        """Return a job whose attributes are those of `fields`."""
        job = cls.__new__(cls)
        job.keep_in(fields)
        return job

    def keep_in(self, fields: Fields) -> None:
        """Store the attributes in `fields` from now on, and discard the current ones."""
        self._fields = fields

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the state for a copy with its own fields."""
        state: Any = super().__getstate__()
        attributes, slots = state
        fields = Fields()
        for name in Fields.__slots__:
            setattr(fields, name, getattr(self._fields, name))
        return attributes, {**slots, "_fields": fields}

    def __repr__(self) -> str:
        return f"<GearmanJob task={self.task!r} unique={self.unique!r} handle={self.handle!r}>"

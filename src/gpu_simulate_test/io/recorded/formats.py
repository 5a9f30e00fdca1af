"""What a format of recorded requests in JSON is, and helpers to read one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpu_simulate_test.io.recorded.numbers import Malformed, Table

Document = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A format, known by its keys.

    Attributes
    ----------
    name : str
        Whose it is.
    keys : tuple of str
        Keys of its first object, ``a.b`` for those within; two of them are enough.
    read : callable
        From the objects of a file and the unit of its times, where the user gives one, to a table of
        `gpu_simulate_test.io.recorded.frame`.
    fields : mapping of str to str
        From a column of that to what the file calls it.
    asks_unit : bool
        The format does not say what unit its times have.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Iterator[Document], str | None], Table]
    fields: Mapping[str, str] = field(default_factory=dict)
    asks_unit: bool = False


def get(document: Document, path: str) -> Any:
    """The value at ``a.b.c``; None where one of them is missing or null.

    Raises
    ------
    Malformed
        What should hold the next is no object.
    """
    value: Any = document
    for key in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Malformed(f"{path}: what should hold {key} is no object")
        value = value.get(key)
    return value


def columns(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Columns of requests that are objects; None where one has no such key."""
    listed = list(rows)
    return {name: [row.get(name) for row in listed] for name in dict.fromkeys(name for row in listed for name in row)}


def picked(documents: Iterable[Document], fields: Mapping[str, str]) -> Table:
    """Columns of objects that have one request each, by where it is found in them."""
    table: dict[str, list[Any]] = {name: [] for name in fields}
    plain = not any("." in path for path in fields.values())
    places = [(table[name].append, path) for name, path in fields.items()]
    for document in documents:
        for append, path in places:
            append(document.get(path) if plain else get(document, path))
    return table


def only(documents: Iterator[Document]) -> Document:
    """The object of a file that must have one."""
    first = next(documents)
    if next(documents, None) is not None:
        raise Malformed("several results in one file; give the file of one")
    return first


def lists(document: Document, fields: Mapping[str, str]) -> Table:
    """Columns of an object that holds a list for each, all as long as the first."""
    table = {name: document[path] for name, path in fields.items() if path in document}
    size = None
    for name, values in table.items():
        if not isinstance(values, list):
            raise Malformed(f"{fields[name]} is no list")
        size = len(values) if size is None else size
        if len(values) != size:
            first = next(iter(table))
            raise Malformed(f"{fields[name]} has {len(values)} entries, {fields[first]} {size}")
    return table


def tokens(document: Document, *paths: str) -> Any:
    """The first of these that is there."""
    return next((value for path in paths if (value := get(document, path)) is not None), None)

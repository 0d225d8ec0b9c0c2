"""What a `Collection` declares: `Index`, `DocumentField`, `Reference`, and the settings that they make together.

The platform checks the settings at deploy (types, expressions, limits); what can be seen here is told here, with its place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


__all__ = ["DocumentField", "Index", "Reference", "settings"]

_ABSENT = ...  # there may be a default of None


class Index:
    """An index over one term or several: `Index("city", "-age")`. A minus sorts a term downwards, a last "[]" takes each value
    of an array. `unique`: no two documents have the same terms. `sparse`: none for documents that lack a term. `values`: fields
    kept in the index itself, so that a query for them alone reads no document."""

    __slots__ = ("sparse", "terms", "unique", "values")

    def __init__(self, *terms: str, unique: bool = False, sparse: bool = False, values: Iterable[str] = ()) -> None:
        self.terms = terms
        self.unique = unique
        self.sparse = sparse
        self.values = tuple(values)

    def settings(self) -> dict[str, Any]:
        """As the platform takes it."""
        found: dict[str, Any] = {
            "terms": [
                {"path": term.removeprefix("-"), "descending": True} if term.startswith("-") else {"path": term}
                for term in self.terms
            ]
        }
        if self.unique:
            found["unique"] = True
        if self.sparse:
            found["sparse"] = True
        if self.values:
            found["values"] = list(self.values)
        return found


class DocumentField:
    """A field of every document: `DocumentField("text", required=True)`. `type`: any, bool, int, float, decimal, number, text,
    bytes, time, object, set, or array<...> of one; with a last "?" null is allowed. `default` is written where the field is not
    given; `computed` is an expression over the document, written at each write; `check` is one that must be true."""

    __slots__ = ("check", "computed", "default", "required", "type")

    def __init__(
        self, type: str = "any", *, required: bool = False, default: Any = _ABSENT, computed: str = "", check: str = ""
    ) -> None:
        self.type = type
        self.required = required
        self.default = default
        self.computed = computed
        self.check = check

    def settings(self) -> dict[str, Any]:
        """As the platform takes it."""
        found: dict[str, Any] = {"type": self.type}
        if self.required:
            found["required"] = True
        if self.default is not _ABSENT:
            found["default"] = self.default
        if self.computed:
            found["computed"] = self.computed
        return found


class Reference:
    """A field that holds the id of a document in another collection (`many`: an array of ids); ids that are not there are
    refused. `on_delete` of the other document: "restrict" refuses it, "cascade" deletes this one too, "keep" leaves it."""

    __slots__ = ("check", "collection", "many", "on_delete", "required")

    def __init__(self, collection: Any, *, on_delete: str = "restrict", many: bool = False, required: bool = False) -> None:
        self.collection = collection
        self.on_delete = on_delete
        self.many = many
        self.required = required
        self.check = ""

    def settings(self) -> dict[str, Any]:
        """As the platform takes it."""
        name = getattr(self.collection, "name", self.collection)
        kind = "array<ref>" if self.many else "ref" if self.required else "ref?"
        found: dict[str, Any] = {"type": kind, "collection": name}
        if self.required:
            found["required"] = True
        if self.on_delete != "restrict":
            found["on_delete"] = self.on_delete
        return found


def settings(
    *,
    indexes: Mapping[str, Index | str | Iterable[str]],
    unique: Iterable[str],
    schema: Mapping[str, DocumentField | Reference | str],
    checks: Mapping[str, str],
    additional: bool,
    ttl: str,
    history: int | None,
    changes: str,
) -> dict[str, Any]:
    """The settings of a collection, JSON values. Raises `ValueError` or `TypeError` for what is no declaration."""
    found: dict[str, Any] = {}
    if made := _indexes(indexes, unique):
        found["indexes"] = made
    if rules := _rules(schema, checks, additional):
        found["schema"] = rules
    if history is not None:
        found["history_seconds"] = history
    if ttl:
        found["ttl_field"] = ttl
    if changes != "new":
        found["changes"] = changes
    return found


def _indexes(indexes: Mapping[str, Any], unique: Iterable[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in [unique] if isinstance(unique, str) else unique:
        made[field.replace(".", "_").replace("[]", "")] = Index(field, unique=True).settings()
    for name, index in indexes.items():
        if name in made:
            raise ValueError(f"the index {name!r} is declared twice: by unique= and by indexes=")
        made[name] = _index(index).settings()
    return made


def _rules(schema: Mapping[str, Any], checks: Mapping[str, str], additional: bool) -> dict[str, Any]:
    fields = {name: DocumentField(field) if isinstance(field, str) else field for name, field in schema.items()}
    said = {name: {"name": name, "expression": text} for name, text in checks.items()}
    for name, declared in fields.items():
        if not isinstance(declared, (DocumentField, Reference)):
            raise TypeError(f"schema: {name!r} is {declared!r}; it is a type such as 'text', a DocumentField or a Reference")
        if declared.check:
            said.setdefault(name, {"name": name, "expression": declared.check})
    rules: dict[str, Any] = {}
    if fields:
        rules["fields"] = {name: declared.settings() for name, declared in fields.items()}
    if said:
        rules["checks"] = list(said.values())
    if not additional:
        rules["additional"] = False
    return rules


def _index(given: Any) -> Index:
    if isinstance(given, Index):
        return given
    return Index(given) if isinstance(given, str) else Index(*given)

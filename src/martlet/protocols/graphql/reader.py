"""One run of a plan over one snapshot of the database: what its steps ask for, authorized, budgeted, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from martlet.documents import Document, Query, View, values
from martlet.documents.catalog import Compiled
from martlet.documents.cursors import Cursor, Signer, digest
from martlet.documents.expressions import Expression, compile_expression
from martlet.documents.layout import entry_of, row_of
from martlet.documents.order import decode_id
from martlet.documents.query import Plan
from martlet.documents.view import document, id_bytes
from martlet.errors import Conflict, InvalidInput, LimitExceeded
from martlet.limits import LIMITS, exceeded
from martlet.protocols.graphql.faults import Refusal, shown
from martlet.protocols.graphql.filters import Range, filter_of, range_of, sort_of
from martlet.protocols.graphql.model import Entity, Index
from martlet.protocols.graphql.nodes import Level, Selection
from martlet.protocols.graphql.schema import PAGE_DEFAULT
from martlet.protocols.graphql.steps import Asked, Page

__all__ = ["Permit", "Reader"]

Permit = Callable[[str, str], None]  # (action, collection); raises AccessDenied
Of = Callable[[], bytes]
_LOOK_MOST: Final = LIMITS["query_scan_documents"].default
_SORT_MOST: Final = LIMITS["query_sort_documents"].default
_VALUES_MOST: Final = LIMITS["graphql_values"].default
_COMPUTE_MOST: Final = LIMITS["graphql_compute"].default
_ANSWER_MOST: Final = LIMITS["graphql_response_bytes"].default
_PAGE_MOST: Final = LIMITS["query_documents"].default
_PAGE_BYTES: Final = LIMITS["document_page_bytes"].default


class Reader:
    """`reads` counts batches: one for each step of a plan, however many objects its level has."""

    def __init__(self, view: View, variables: Any, permit: Permit, signer: Signer) -> None:
        self.view = view
        self.variables = variables
        self.reads = 0
        self.looked_at = 0  # documents and entries
        self.asked: list[tuple[Asked, Level]] = []
        self.size = 0  # bytes of the answer, at most about
        self._values = self._computed = 0
        self.introspected: Mapping[str, Any] = {}
        self._permit = permit
        self._permitted: set[tuple[str, str]] = set()
        self._signer = signer

    def take_over(self, before: Reader) -> None:
        """Go on from what another run of the same operation has used up."""
        self.reads, self.looked_at = before.reads, before.looked_at
        self.size, self._values, self._computed = before.size, before._values, before._computed

    def count(self, values: int) -> None:
        """So many values more. Raises `Refusal` beyond limit graphql_values."""
        self._values += values
        self.size += 8 * values
        if self._values > _VALUES_MOST:
            raise Refusal([shown(exceeded("graphql_values", None, "the operation's answer"))])

    def check_size(self, answer: Any) -> None:
        """Raises `Refusal` for an answer beyond limit graphql_response_bytes: documents that several lead to are in it as
        often. It is measured only where the first guess is too large."""
        if self.size <= _ANSWER_MOST:
            return
        left = _ANSWER_MOST
        waiting = [answer]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                waiting.extend(value.values())
                left -= sum(map(len, value)) + 4 * len(value)
            elif isinstance(value, list):
                waiting.extend(value)
                left -= len(value)
            else:
                left -= len(value) if isinstance(value, str) else len(bytes(value)) if isinstance(value, msgspec.Raw) else 1
            if left < 0:
                raise Refusal([shown(exceeded("graphql_response_bytes", None, "the operation's answer"))])

    def permit(self, action: str, collection: str) -> None:
        if (action, collection) not in self._permitted:
            self._permit(action, collection)
            self._permitted.add((action, collection))

    def documents(self, selection: Selection, docs: Sequence[Document]) -> Level:
        """What is asked of these documents."""
        loaded = [values.load(doc.value_bytes) for doc in docs]
        level = Level([value if type(value) is dict else {} for value in loaded], docs)
        return selection.run(self, level)

    def ask(self, node: Asked, level: Level) -> None:
        if level.outs:
            self.asked.append((node, level))

    # documents by id, by reference, by unique index

    def fetch(self, entity: Entity, ids: Sequence[Any]) -> dict[Any, Document]:
        """The documents there are, by id: one batch."""
        self.permit("documents:Get", entity.collection)
        compiled = self.view.collection(entity.collection)
        self.reads += 1
        found: dict[Any, Document] = {}
        if compiled is None:
            return found
        for id in dict.fromkeys(id for id in ids if isinstance(id, str)):
            self._looked()
            try:
                row = self.view.row(compiled, id_bytes(id))
            except (InvalidInput, LimitExceeded):  # what no document's id can be
                continue
            if row is not None:
                self.view.usage.read(len(row.body))
                found[id] = document(id, row)
        return found

    def referring(self, entity: Entity, by: str, ids: Sequence[Any], most: int) -> list[list[Document]]:
        """For each id the first `most` documents whose field `by` holds it: one batch."""
        self.permit("documents:List", entity.collection)
        self.reads += 1
        plan = self._referring_plan(entity, by, "", {})
        if plan is None:
            return [[] for _ in ids]
        return [[doc for _, doc in self._part(plan, id, b"", most)[0]] for id in ids]

    def unique(self, entity: Entity, index: Index, given: Mapping[str, Any]) -> Document | None:
        self.permit("documents:List", entity.collection)
        self.reads += 1
        compiled = self.view.collection(entity.collection)
        if compiled is None:
            return None
        equals = tuple(given[term] for term in index.terms())
        plan = self._plan(Query(collection=entity.collection, index=index.name, equals=equals, limit=1), compiled)
        found = plan.run(self.view, b"", 1, 1, _PAGE_BYTES).found
        return found[0][1] if found else None

    # pages

    def listed(self, entity: Entity, index: Index | None, place: str, given: Mapping[str, Any]) -> Page | Exception:
        """A page of all documents, or of an index."""
        self.permit("documents:List", entity.collection)
        self.reads += 1
        compiled = self.view.collection(entity.collection)
        expression, parameters = filter_of(given.get("filter"))
        part = range_of(entity, index, given) if index is not None else Range()
        backward = given.get("before") is not None
        query = Query(
            collection=entity.collection,
            index=index.name if index is not None else "",
            equals=part.equals,
            low=part.low,
            high=part.high,
            prefix=part.prefix,
            reverse=(given.get("reverse") is True) != backward,
            filter=expression,
            parameters=parameters,
            sort=sort_of(given.get("sort")),
            limit=_size(given),
        )
        of = self._of(place, given)
        if compiled is None:
            return Page([])
        plan = self._plan(query, compiled)
        if plan.sort:
            return self._sorted(plan, given, of)
        return self._page(given, of, lambda after, want: self._run(plan, after, want))

    def pages_referring(
        self, entity: Entity, by: str, place: str, ids: Sequence[Any], given: Mapping[str, Any]
    ) -> list[Page | Exception]:
        """For each id a page of the documents whose field `by` holds it: one batch."""
        self.permit("documents:List", entity.collection)
        self.reads += 1
        expression, parameters = filter_of(given.get("filter"))
        plan = self._referring_plan(entity, by, expression, parameters, reverse=given.get("before") is not None)
        size = _size(given)
        if plan is None:
            return [Page([]) for _ in ids]
        pages: list[Page | Exception] = []
        for id in ids:
            of = self._of(place, given, id)
            pages.append(self._page(given, of, partial(self._part, plan, id), size))
        return pages

    def pages_of_ids(
        self, entity: Entity, place: str, level: Level, name: str, given: Mapping[str, Any]
    ) -> list[Page | Exception]:
        """For each document a page of those whose ids its field holds, in the field's order: one batch."""
        expression, parameters = filter_of(given.get("filter"))
        test = compile_expression(expression) if expression else None
        size = _size(given)
        held = [ids if isinstance(ids := value.get(name), list) else [] for value in level.values]
        windows: list[tuple[int, int]] = []
        for at, ids in enumerate(held):
            windows.append(self._window(given, self._of(place, given, level.docs[at].id), len(ids), size))
        wanted = [ids if test is not None else ids[low:high] for ids, (low, high) in zip(held, windows, strict=True)]
        found = self.fetch(entity, [id for ids in wanted for id in ids])
        pages: list[Page | Exception] = []
        for at, ids in enumerate(wanted):
            docs = [found[id] for id in ids if id in found]
            of = self._of(place, given, level.docs[at].id)
            count = len(held[at])
            if test is not None:
                docs = [doc for doc in docs if self._holds(test, doc, parameters)]
                count = len(docs)
                low, high = self._window(given, of, count, size)
                docs = docs[low:high]
            else:
                low, high = windows[at]
            pages.append(self._windowed(docs, of, low, high, count))
        return pages

    def _holds(self, test: Expression, doc: Document, parameters: Mapping[str, Any]) -> bool:
        self.view.usage.nodes += test.nodes
        self._computed += test.nodes
        if self._computed > _COMPUTE_MOST:
            raise exceeded("graphql_compute", None, "the operation's filters")
        return test.holds(values.load(doc.value_bytes), parameters)

    def _page(
        self, given: Mapping[str, Any], of: Of, part: Callable[[bytes, int], tuple[list[tuple[bytes, Document]], bytes | None]],
        size: int = 0,
    ) -> Page:  # fmt: skip
        size = size or _size(given)
        after, before = given.get("after"), given.get("before")
        text = after if before is None else before
        position = self._signer.open(text, "query", of()).position if text is not None else b""
        found, more = part(position, size + 1)
        if len(found) > size:
            found = found[:size]
            more = found[-1][0]
        if before is not None:
            found.reverse()
        docs = [doc for _, doc in found]
        first = found[0][0] if found else None
        last = found[-1][0] if found else None
        if before is not None:
            return Page(docs, self._cursor(of, last), self._cursor(of, more))
        return Page(docs, self._cursor(of, more), self._cursor(of, first) if after is not None else None)

    def _sorted(self, plan: Plan, given: Mapping[str, Any], of: Of) -> Page:
        found, more = self._run(plan, b"", _SORT_MOST + 1, _SORT_MOST + 1, 64 * _PAGE_BYTES)
        if more is not None or len(found) > _SORT_MOST:
            raise exceeded("query_sort_documents", None, "a list with `sort`")
        docs = plan.sorted([doc for _, doc in found])
        if given.get("before") is not None:  # the scan went backwards, and equal ones came out so
            docs = plan.sorted([doc for _, doc in reversed(found)])
        low, high = self._window(given, of, len(docs), _size(given))
        return self._windowed(docs[low:high], of, low, high, len(docs))

    def _window(self, given: Mapping[str, Any], of: Of, count: int, size: int) -> tuple[int, int]:
        """[from, to) of a list that is there as a whole."""
        after, before = given.get("after"), given.get("before")
        if before is not None:
            high = min(self._signer.open(before, "query", of()).offset, count)
            return max(high - size, 0), high
        low = self._signer.open(after, "query", of()).offset if after is not None else 0
        return min(low, count), min(low + size, count)

    def _windowed(self, docs: list[Document], of: Of, low: int, high: int, count: int) -> Page:
        seal = self._signer.seal
        after = (lambda: seal(Cursor("query", of(), 0, b"", high))) if high < count else None
        before = (lambda: seal(Cursor("query", of(), 0, b"", low))) if low > 0 else None
        return Page(docs, after, before)

    def _cursor(self, of: Of, position: bytes | None) -> Callable[[], str] | None:
        if position is None:
            return None
        return lambda: self._signer.seal(Cursor("query", of(), 0, position))

    def _of(self, place: str, given: Mapping[str, Any], id: Any = "") -> Of:
        """What a cursor of this list stands for: everything but where it is, and how much at once. Made when there is need."""

        def of() -> bytes:
            asked = sorted((name, repr(value)) for name, value in given.items() if name not in ("size", "after", "before"))
            return digest("graphql", self.view.database, place, str(id), asked)

        return of

    # ranges

    def _plan(self, query: Query, compiled: Compiled) -> Plan:
        plan = Plan(query, compiled)
        if self.view.at is not None:
            plan.check_past(self.view.at)
        return plan

    def _referring_plan(
        self, entity: Entity, by: str, expression: str, parameters: dict[str, Any], reverse: bool = False
    ) -> Plan | None:
        compiled = self.view.collection(entity.collection)
        if compiled is None:
            return None
        index = compiled.by_name.get(f"$ref:{by}")
        if index is None or index.record.status != "ready":
            raise Conflict(f"references of {entity.name}.{by} are being indexed; try again", index=f"{entity.name}.{by}")
        query = Query(collection=entity.collection, filter=expression, parameters=parameters, reverse=reverse)
        plan = Plan(query, compiled)
        plan.index = index
        if self.view.at is not None:
            plan.check_past(self.view.at)
        return plan

    def _part(self, plan: Plan, id: Any, after: bytes, want: int) -> tuple[list[tuple[bytes, Document]], bytes | None]:
        assert plan.index is not None
        term = plan.index.term(id, False)
        if not after and plan.filter is None and not plan.query.reverse and self.view.at is None:
            found = self._beginning(plan, term, want)
            if found is not None:
                return found, None
        plan.low = term
        plan.high = term + b"\xff"
        return self._run(plan, after, want)

    def _beginning(self, plan: Plan, term: bytes, want: int) -> list[tuple[bytes, Document]] | None:
        """The first `want` of a range, as `Plan.run` finds them, in one scan; None where that is not enough."""
        assert plan.index is not None
        view, prefix, docs = self.view, plan.index.prefix, plan.compiled.docs
        get, now_ms, usage = view.reader.get, view.now_ms, view.usage
        found: list[tuple[bytes, Document]] = []
        size = 0
        rows = view.reader.scan(prefix + term, prefix + term + b"\xff", limit=want)
        self._looked(len(rows))
        for key, raw in rows:
            entry = entry_of(key[6:], raw)
            stored = get(docs + entry.id)
            row = row_of(stored) if stored is not None else None
            if row is None or row.expired(now_ms):
                return None
            length = len(row.body)
            size += length
            if size > _PAGE_BYTES:
                return None
            usage.read(length)
            usage.entry_bytes += len(entry.position)
            found.append((entry.position, document(decode_id(entry.id), row)))
        return found

    def _run(
        self, plan: Plan, after: bytes, want: int, look: int = _LOOK_MOST, room: int = _PAGE_BYTES
    ) -> tuple[list[tuple[bytes, Document]], bytes | None]:
        left = _LOOK_MOST - self.looked_at
        if left <= 0:
            raise exceeded("query_scan_documents", None, "the operation's lists")
        if plan.filter is not None:
            affordable = (_COMPUTE_MOST - self._computed) // max(plan.filter.nodes, 1)
            if affordable <= 0:
                raise exceeded("graphql_compute", None, "the operation's filters")
            look = min(look, affordable)
        part = plan.run(self.view, after, want, min(look, left), room)
        self.looked_at += part.looked_at
        self._computed += part.looked_at * (plan.filter.nodes if plan.filter is not None else 0)
        return part.found, part.position

    def _looked(self, count: int = 1) -> None:
        self.looked_at += count
        if self.looked_at > _LOOK_MOST:
            raise exceeded("query_scan_documents", None, "the operation")


def _size(given: Mapping[str, Any]) -> int:
    size = given.get("size")
    if size is None:
        return PAGE_DEFAULT
    if not 1 <= size <= _PAGE_MOST:
        raise InvalidInput(f"size {size}: allowed is 1 to {_PAGE_MOST}", field="size")
    if given.get("after") is not None and given.get("before") is not None:
        raise InvalidInput("give `after` or `before`, not both", field="before")
    return int(size)

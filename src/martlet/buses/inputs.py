"""What a target is given of an event: all of it, a part (InputPath), a constant (Input), a template (InputTransformer). Pure.

Sources: EventBridge user guide, "Input transformation"; recorded deliveries of the service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Undeliverable", "find", "given", "minified", "placeholders"]

_STEP = re.compile(
    r"\.(?P<name>[^.\[\]]+)|\[(?:'(?P<quoted>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<index>-?[0-9]{1,6})|(?P<all>\*))\]"
)
_PLACEHOLDER = re.compile(r"<([A-Za-z0-9_.\-]+)>")
_BLANKS = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
_PREDEFINED: Final = (
    *("aws.events.rule-arn", "aws.events.rule-name", "aws.events.event", "aws.events.event.json"),
    "aws.events.event.ingestion-time",
)
_MISSING: Final = object()


class Undeliverable(Exception):
    """The template made no JSON of this event: it is dropped, as the service does."""


def minified(text: str) -> str:
    """JSON text without blanks between its parts; its numbers stay as they are written."""
    return _BLANKS.sub(lambda found: found[1] or "", text)


def find(event: Any, path: str) -> Any:
    """The value at a path such as "$.detail.items[0].id"; None where there is none."""
    found = _find(event, path)
    return None if found is _MISSING else found


def _find(event: Any, path: str) -> Any:
    if not path.startswith("$"):
        return _MISSING
    at, value = 1, event
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return _MISSING
        value = _step(value, step)
        if value is _MISSING:
            return _MISSING
        at = step.end()
    return value


def _step(value: Any, step: re.Match[str]) -> Any:
    name = step["name"] or step["quoted"] or step["double"]
    if name:
        return value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    if step["all"]:
        return value if isinstance(value, list) else _MISSING
    index = int(step["index"] or 0)
    return value[index] if isinstance(value, list) and -len(value) <= index < len(value) else _MISSING


def placeholders(template: str, paths: Mapping[str, str]) -> list[str]:
    """The placeholders of a template that mean nothing."""
    return [name for name in _PLACEHOLDER.findall(template) if name not in paths and name not in _PREDEFINED]


def given(target: Mapping[str, Any], event: dict[str, Any], text: str, rule_name: str, rule_arn: str, ingested: str) -> str:
    """The text for a target. `text` is the event as JSON. Raises `Undeliverable`."""
    if target.get("Input") is not None:
        return str(target["Input"])
    if target.get("InputPath") is not None:
        return text if target["InputPath"] == "$" else _dump(find(event, str(target["InputPath"])))
    transformer = target.get("InputTransformer")
    if not transformer:
        return text
    values: dict[str, Any] = {name: _find(event, path) for name, path in (transformer.get("InputPathsMap") or {}).items()}
    head = {("detailType" if name == "detail-type" else name): value for name, value in event.items() if name != "detail"}
    known = (rule_arn, rule_name, head, event, ingested)
    values |= dict(zip(_PREDEFINED, known, strict=True))
    return _filled(str(transformer["InputTemplate"]), values)


def _filled(template: str, values: Mapping[str, Any]) -> str:
    structured = template.lstrip()[:1] in ("{", "[")
    parts: list[str] = []
    at = 0
    quoted = False
    for found in _PLACEHOLDER.finditer(template):
        before = template[at : found.start()]
        quoted ^= _quotes(before) % 2 == 1
        parts += (before, _value(values.get(found[1], _MISSING), quoted, structured))
        at = found.end()
    text = "".join([*parts, template[at:]])
    if not structured:
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Undeliverable(f"the input template makes no JSON: {error}") from None
    return text


def _quotes(text: str) -> int:
    return len(re.findall(r'(?<!\\)(?:\\\\)*"', text))


def _value(value: Any, quoted: bool, structured: bool) -> str:
    if value is _MISSING:
        return "" if quoted or not structured else '""'
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if structured and not quoted else text[1:-1]
    text = _dump(value)
    return text if structured else text.replace('"', "")


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

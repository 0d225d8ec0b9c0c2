"""DynamoDB's numbers: decimal, 38 significant digits, magnitudes 1E-130 to 9.9…E+125; exact, never a double.

The canonical text has no exponent, no sign of zero and no zeros that say nothing, so equal numbers have equal texts.
Source: DynamoDB developer guide, "Supported data types and naming rules"; errors as the service words them.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Final

from martlet.documents.dynamodb.expressions.errors import TwiceWorded, invalid

__all__ = ["DIGITS", "add", "canonical", "decimal", "size", "subtract"]

DIGITS: Final = 38
_HIGHEST: Final = 125
_LONG: Final = 1 << 63  # an exponent beyond is none
_INTEGER: Final = (1 << 31) - 1
_FAR: Final = 1_000_000_000  # beyond any mantissa that a request has room for
_EXPONENT_TEXT: Final = 40
_LOWEST: Final = -130

_PLAIN: Final = re.compile(r"0|-?[1-9][0-9]{0,37}")
_ANY: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_EXACT: Final = Context(prec=600, Emax=999_999, Emin=-999_999)

OVERFLOW: Final = "Number overflow. Attempting to store a number with magnitude larger than supported range"
UNDERFLOW: Final = "Number underflow. Attempting to store a number with magnitude smaller than supported range"
PRECISION: Final = "Attempting to store more than 38 significant digits in a Number"
_NOT_A_NUMBER: Final = "The parameter cannot be converted to a numeric value"


def canonical(text: str) -> str:
    """The one text of the number that `text` (as BigDecimal reads it) means. Raises `ServiceError` (ValidationException)."""
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        raise TwiceWorded(f"{_NOT_A_NUMBER}: ", _NOT_A_NUMBER)
    found = _ANY.fullmatch(text)
    if found is None or len(found[1] or "") > _EXPONENT_TEXT:
        raise invalid(f"{_NOT_A_NUMBER}: {text}")
    exponent = int(found[1] or 0)
    if not -_LONG <= exponent < _LONG:
        raise invalid(f"{_NOT_A_NUMBER}: {text}")
    mantissa = text if found[1] is None else text[: found.start(1) - 1]
    if abs(exponent) > _FAR:
        raise TwiceWorded(OVERFLOW if exponent > 0 else UNDERFLOW, _older(text, mantissa, exponent))
    return _checked(mantissa, exponent)


def _older(text: str, mantissa: str, exponent: int) -> str:
    """What the older layer says of an exponent that is far out: it keeps it, and the number's magnitude, in 32 bits."""
    if abs(exponent) > _INTEGER:
        return f"{_NOT_A_NUMBER}: {text}"
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    wraps = len((whole + fraction).lstrip("0") or "0") - len(fraction) + exponent > _INTEGER
    return UNDERFLOW if wraps or exponent < 0 else OVERFLOW


def decimal(text: str) -> Decimal:
    """The value of a canonical text."""
    return Decimal(text)


def add(left: str, right: str) -> str:
    """The exact sum of two canonical numbers; an error when 38 digits cannot hold it."""
    if len(left) < 18 and len(right) < 18 and "." not in left and "." not in right:
        return str(int(left) + int(right))
    return _result(_EXACT.add(Decimal(left), Decimal(right)))


def subtract(left: str, right: str) -> str:
    """The exact difference of two canonical numbers; an error when 38 digits cannot hold it."""
    if len(left) < 18 and len(right) < 18 and "." not in left and "." not in right:
        return str(int(left) - int(right))
    return _result(_EXACT.subtract(Decimal(left), Decimal(right)))


def size(text: str) -> int:
    """Bytes of a canonical number in an item: two digits a byte, aligned to the point, one for exponent, one for a minus."""
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 1
    exponent = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0"))) - 1
    count = len(digits.rstrip("0"))
    return 1 + (count + 1) // 2 + (0 if count % 2 or exponent % 2 else 1) + negative


def _result(number: Decimal) -> str:
    if not number:
        return "0"
    digits = number.normalize(_EXACT)
    if len(digits.as_tuple().digits) > DIGITS:
        raise invalid(OVERFLOW)  # the service says overflow here, although it is the precision that is missing
    return _checked(str(digits), 0)


def _checked(mantissa: str, exponent: int) -> str:
    """Range and precision of mantissa * 10^exponent, then its text. Works on the digits: no size of exponent costs anything."""
    if "E" in mantissa:
        mantissa, _, scale = mantissa.partition("E")
        exponent += int(scale)
    negative = mantissa.startswith("-")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    magnitude = exponent if not digits else exponent - len(fraction) + len(digits) - 1  # of zero it is the exponent's alone
    trimmed = digits.rstrip("0")
    if magnitude > _HIGHEST:
        raise invalid(OVERFLOW)
    if magnitude < _LOWEST:
        raise invalid(UNDERFLOW)
    if not digits:
        return "0"
    if len(trimmed) > DIGITS:
        raise invalid(PRECISION)
    return ("-" if negative else "") + _plain(trimmed, magnitude)


def _plain(digits: str, magnitude: int) -> str:
    """Digits without zeros at either end, the first one standing for 10^magnitude."""
    if magnitude < 0:
        return "0." + "0" * (-magnitude - 1) + digits
    if len(digits) <= magnitude + 1:
        return digits + "0" * (magnitude + 1 - len(digits))
    return digits[: magnitude + 1] + "." + digits[magnitude + 1 :]

"""S3's checksums: CRC32, CRC32C, CRC64NVME, SHA1, SHA256; running, and of a whole from those of its parts.

CRC32 is zlib's; CRC32C and CRC64NVME come from awscrt (29 and 36 GB/s measured; zlib's CRC32 5.6 GB/s), which is imported when
one of them is first asked for. A CRC of a whole is computed from its parts' CRCs and lengths, without their bytes.
Source: S3 user guide, "Checking object integrity".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

__all__ = ["ALGORITHMS", "Checksum", "combined", "composite", "is_full_object", "is_valid", "member_of"]

ALGORITHMS: Final = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
_BYTES: Final = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
# Reflected polynomials, for combining.
_POLYNOMIALS: Final = {"CRC32": (32, 0xEDB88320), "CRC32C": (32, 0x82F63B78), "CRC64NVME": (64, 0x9A6C9329AC4BC9B5)}


class Checksum:
    """A running checksum. `update` may be called from any one thread at a time."""

    __slots__ = ("_crc", "_hash", "_value", "algorithm")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._value = 0
        self._hash: Any = None
        self._crc: Callable[[bytes, int], int] | None = None
        if algorithm in ("SHA1", "SHA256"):
            self._hash = hashlib.new(algorithm.lower(), usedforsecurity=False)
        else:
            self._crc = _crc_function(algorithm)

    def update(self, data: bytes) -> None:
        if self._crc is not None:
            self._value = self._crc(data, self._value)
        else:
            self._hash.update(data)

    def digest(self) -> bytes:
        if self._crc is not None:
            return self._value.to_bytes(_BYTES[self.algorithm], "big")
        found: bytes = self._hash.digest()
        return found

    def text(self) -> str:
        """In Base64, as S3 writes it."""
        return base64.b64encode(self.digest()).decode()


def _crc_function(algorithm: str) -> Callable[[bytes, int], int]:
    if algorithm == "CRC32":
        return zlib.crc32
    from awscrt import checksums  # type: ignore[import-untyped]

    found: Callable[[bytes, int], int] = checksums.crc32c if algorithm == "CRC32C" else checksums.crc64nvme
    return found


def member_of(algorithm: str) -> str:
    """The name of the algorithm's member in requests and answers."""
    return f"Checksum{algorithm}"


def is_full_object(algorithm: str) -> bool:
    """Whether the algorithm can be combined, so that FULL_OBJECT is open to it."""
    return algorithm in _POLYNOMIALS


def is_valid(algorithm: str, text: str) -> bool:
    """Whether `text` is Base64 of as many bytes as the algorithm has."""
    try:
        return len(base64.b64decode(text, validate=True)) == _BYTES[algorithm]
    except (binascii.Error, ValueError):
        return False


def composite(algorithm: str, parts: Sequence[str]) -> str:
    """The checksum of the parts' checksums, with their number behind it."""
    running = Checksum(algorithm)
    for part in parts:
        running.update(base64.b64decode(part))
    return f"{running.text()}-{len(parts)}"


def combined(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The CRC of all parts' bytes together, of their (checksum, size)."""
    bits, polynomial = _POLYNOMIALS[algorithm]
    whole = 0
    for text, size in parts:
        value = int.from_bytes(base64.b64decode(text), "big")
        whole = _shifted(whole, size, bits, polynomial) ^ value if size else whole
    return base64.b64encode(whole.to_bytes(_BYTES[algorithm], "big")).decode()


def _shifted(crc: int, size: int, bits: int, polynomial: int) -> int:
    """`crc` as if `size` bytes of zeros had followed (and without their own part): crc · x^(8·size) modulo the polynomial."""
    return _times(_power(size, bits, polynomial), crc, bits, polynomial)


def _times(one: int, other: int, bits: int, polynomial: int) -> int:
    """The product of two reflected polynomials modulo the CRC's."""
    product = 0
    top = 1 << (bits - 1)
    mask = top
    while mask:
        if one & mask:
            product ^= other
        other = (other >> 1) ^ polynomial if other & 1 else other >> 1
        mask >>= 1
    return product


@lru_cache(maxsize=256)
def _power(size: int, bits: int, polynomial: int) -> int:
    """x^(8·size) modulo the polynomial."""
    result = 1 << (bits - 1)  # x^0
    square = 1 << (bits - 1 - 8)  # x^8
    while size:
        if size & 1:
            result = _times(square, result, bits, polynomial)
        square = _times(square, square, bits, polynomial)
        size >>= 1
    return result

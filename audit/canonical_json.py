"""JSON with exactly one reading: no duplicate keys, no floats beyond doubles, limited depth and size."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from froc.errors import VerificationError

SAFE_INT = 2**53
"""Readers that only know doubles silently change whole numbers from here on."""


MAX_BYTES = 16 * 2**20


MAX_DEPTH = 32


# possessive quantifiers, and an unterminated string is one token: no input makes it scan a byte twice
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def compact(document: Any) -> bytes:
    r"""One line of ASCII JSON with sorted keys: the form of every JSON file that we write into a bundle.

    >>> compact({"b": 1, "a": [True]})
    b'{"a":[true],"b":1}\n'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def strict_json(data: bytes, *, limit: int = MAX_BYTES, decimals: bool = False) -> Any:
    """Parse JSON with one meaning: UTF-8, no duplicate keys, no NaN, no floats, whole numbers below 2**53.

    decimals: also admit finite decimal numbers and any whole number, for documents that are linked by their digest.

    VerificationError names the violated rule.
    """
    if len(data) > limit:
        raise VerificationError("json-too-large", f"{len(data)} bytes of JSON, at most {limit} are read")
    _refuse_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_number,
            parse_float=_decimal if decimals else _refuse_number,
            parse_int=int if decimals else _small,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except ValueError as error:
        raise VerificationError("json-invalid", "not one JSON document in UTF-8") from error
    return value


def exact(document: Any) -> Any:
    """The document without floats: each becomes the shortest decimal string that reads back as the same float.

    >>> exact({"budget": 0.1, "n": 3})
    {'budget': '0.1', 'n': 3}
    """
    if isinstance(document, Mapping):
        return {str(key): exact(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [exact(value) for value in document]
    if isinstance(document, float) or (
        isinstance(document, int) and not isinstance(document, bool) and abs(document) >= SAFE_INT
    ):
        return repr(document)
    return document


def _refuse_depth(data: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(data):
        opened = token.group()[:1]
        depth += (opened in b"[{") - (opened in b"]}")
        if depth > MAX_DEPTH:
            raise VerificationError("json-too-deep", f"JSON nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise VerificationError("json-duplicate-key", "a JSON object names a key twice")
    return document


def _refuse_number(_text: str) -> Any:
    raise VerificationError("json-nan-or-float", "a number is not a whole number; signed numbers are whole or strings")


def _small(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= SAFE_INT:
        raise VerificationError("json-nan-or-float", "a whole number is 2**53 or more; not every reader keeps it")
    return int(text)


def _decimal(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise VerificationError("json-nan-or-float", "a number is too large to be a number")
    return value

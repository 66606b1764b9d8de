"""The strict parser, against what must be refused, and the form that is written."""

import json
import time
from typing import Any

import pytest

from froc.audit import canonical_json
from froc.errors import VerificationError


def check_of(data: bytes, **more: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        canonical_json.strict_json(data, **more)
    return caught.value.check


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b'{"a":1,"a":1}', "json-duplicate-key"),
        (b'{"a":{"b":1,"b":2}}', "json-duplicate-key"),
        (b'{"a":NaN}', "json-nan-or-float"),
        (b'{"a":-Infinity}', "json-nan-or-float"),
        (b'{"a":1.0}', "json-nan-or-float"),
        (b'{"a":1e2}', "json-nan-or-float"),
        (b'{"a":9007199254740992}', "json-nan-or-float"),
        (b'{"a":-9007199254740992}', "json-nan-or-float"),
        (b'{"a":1' + b"0" * 5000 + b"}", "json-nan-or-float"),
        (b"[" * 33 + b"]" * 33, "json-too-deep"),
        (b"[" * 200_000, "json-too-deep"),
        (b'{"a":' * 200_000, "json-too-deep"),
        (b"{} {}", "json-invalid"),
        (b"{}x", "json-invalid"),
        (b"", "json-invalid"),
        (b"{'a':1}", "json-invalid"),
        (b'\xef\xbb\xbf{"a":1}', "json-invalid"),
        ('{"a":1}'.encode("utf-16"), "json-invalid"),
        (b'{"a":"\xff"}', "json-invalid"),
        (b'{"a":"\\ud800"}', "json-invalid"),
        (b'{"a":"\n"}', "json-invalid"),
        (b'"' + b"x" * canonical_json.MAX_BYTES + b'"', "json-too-large"),
    ],
)
def test_strict_json_refuses(data: bytes, check: str) -> None:
    assert check_of(data) == check


@pytest.mark.parametrize(
    "data",
    [b'{"a":[1,-2,true,null,"[[[["]}', b"[" * 32 + b"]" * 32, b"9007199254740991", '"\u00e4\U0001f600"'.encode()],
)
def test_strict_json_reads_what_has_one_meaning(data: bytes) -> None:
    assert canonical_json.strict_json(data) == json.loads(data)


def test_strict_json_with_decimals_still_refuses_what_is_no_number() -> None:
    assert canonical_json.strict_json(b"[0.1,1e-5,12345678901234567890]", decimals=True) == [
        0.1,
        1e-5,
        12345678901234567890,
    ]
    assert check_of(b"[1e999]", decimals=True) == "json-nan-or-float"
    assert check_of(b"[NaN]", decimals=True) == "json-nan-or-float"


def test_exact_leaves_no_float_and_loses_nothing() -> None:
    document: dict[str, Any] = {"a": [0.1, 1 / 3, 1e-300, True, None, 7, 2**60], "b": {"c": 1.0}}
    exact_document: Any = canonical_json.exact(document)
    assert canonical_json.strict_json(canonical_json.compact(exact_document)) == exact_document
    assert [float(text) for text in exact_document["a"][:3]] == document["a"][:3]
    assert exact_document["a"][3:] == [True, None, 7, str(2**60)]


LONG = {
    "escaped quotes": b'"' + b'\\"' * 2**20,
    "depth": b'{"a":' * 2**18,
    "open strings": b'"a' * 2**20,
    "backslashes": b'"' + b"\\" * 2**20,
    "half escapes": b'"\\u' * 2**20,
}
"""Documents that make a careless parser go back and forth."""


@pytest.mark.parametrize("name", LONG)
def test_no_document_takes_long_to_refuse(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(VerificationError):
        canonical_json.strict_json(LONG[name])
    # two megabytes; a search that goes back would take hours
    assert time.process_time() - begin < 5

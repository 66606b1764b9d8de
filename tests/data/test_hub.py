"""A data set of the hub as a task; what stands for the network are the two functions that reach it."""

import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from froc.data.task import FORGETTING
from froc.data.tasks import hub
from froc.errors import InputError
from froc.search.build import read_task

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _rows(label: str) -> list[dict[str, Any]]:
    return [{"question": f"{label} {i}?", "answer": f"é {i}", "group": f"{label} {i % 2}"} for i in range(8)]


SPLITS = {
    "forget": [row | {"written": date(2024, 5, 1)} for row in _rows("a")],
    "retain": _rows("b"),
    "forget_queries": _rows("c"),
    "train": _rows("d"),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the libraries were asked for."""
    calls: list[Any] = []

    def information(name: str, revision: str | None) -> Any:
        calls.append((name, revision))
        return SimpleNamespace(sha=COMMIT)

    def load_dataset(*words: Any, **options: Any) -> Any:
        calls.append((words, options))
        return SPLITS

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: SimpleNamespace(dataset_info=information))
    )
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_splits_are_files_of_a_task_and_the_commit_is_in_its_name(asked: list[Any]) -> None:
    task, model = read_task(Path("hf:some-org/some.data:people@v2"), None)
    # the revision is what is asked about, the commit what is read; nothing says that code may be run
    assert asked == [("some-org/some.data", "v2"), (("some-org/some.data", "people"), {"revision": COMMIT})]
    assert model is None
    assert task.name == f"hf:some-org/some.data:people@{COMMIT}"
    assert COMMIT in task.notes[0]
    assert [row.key for row in task.forget] == [(f"a {i}?", f"é {i}") for i in range(8)]
    assert [row.question for row in task.queries[FORGETTING]] == [f"c {i}?" for i in range(8)]
    assert task.forget[3].group == "a 1"


@pytest.mark.parametrize("text", ["hf:name", "hf:a/b@", "hf:a/b/c", "hf:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="give hf:ORG/NAME"):
        hub.load(text)


def test_what_cannot_be_had_is_one_sentence(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--data goes with a benchmark"):
        read_task(Path("hf:a/b"), Path("."))
    monkeypatch.setitem(SPLITS, "forget", SPLITS["forget"][:1])
    monkeypatch.delitem(SPLITS, "retain")
    with pytest.raises(InputError, match=r"no split 'retain' \(it has: forget, forget_queries, train\)"):
        hub.load("hf:a/b")

    class TransportError(Exception):
        """An error of the network that is no OSError, as httpx has them."""

    for kind in (OSError, TransportError):
        monkeypatch.setattr(hub, "resolved", Mock(side_effect=kind("no route\nmore")))
        with pytest.raises(InputError, match=rf"could not be had from the hub \({kind.__name__}: no route\); mend"):
            hub.load("hf:a/b")
    monkeypatch.undo()
    monkeypatch.setattr(hub, "resolved", lambda *_: COMMIT)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'froc\[hub\]'"):
        hub.load("hf:a/b")

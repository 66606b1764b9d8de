"""A whole removal by command: nothing that it leaves behind or says holds a forgotten question, answer or name.

The chosen model's own files are set aside: what those still say is what the certificate is about.
"""

import html
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from froc.audit.rendering.words import LIMITS
from froc.data.task import FORGETTING, UTILITY, Row
from froc.data.tasks import embedded_text
from froc.models.base import Base
from tests.commands import Commands
from tests.small_model import SMALL

LOUD = """
from dataclasses import dataclass

from froc.methods.grad_diff import GradDiff


@dataclass(frozen=True)
class Loud(GradDiff):
    "GradDiff, which fails with a row of the data in its message, as a library might."

    def phases(self, facts):
        if facts.seed:
            raise ValueError("cannot work on {text}")
        return super().phases(facts)
"""


@dataclass(frozen=True)
class Whole:
    """What a removal left, and all that it said."""

    run: Path
    bundle: Path
    output: str


def _lines(path: Path, rows: Iterable[Row]) -> None:
    documents = ({"question": row.question, "answer": row.answer, "group": row.group} for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")


def _loud(folder: Path, text: str) -> None:
    """Install a method that quotes a row in its error."""
    about = folder / "loud-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "loud.py").write_text(LOUD.replace("{text}", text), encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[froc.methods]\nloud = loud:Loud\n", encoding="utf-8")


@pytest.fixture(scope="module")
def forgotten() -> set[str]:
    """Every question and answer to be forgotten, trained on or measured, and whom they are about."""
    task = embedded_text.task(SMALL)
    rows = [*task.forget, *task.queries[FORGETTING]]
    return {text for row in rows for text in (row.question, row.answer, row.group) if text}


@pytest.fixture(scope="module")
def whole(base: Base, commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    place = tmp_path_factory.mktemp("removal")
    data, out, key = place / "data", place / "run", place / "key"
    data.mkdir()
    made = embedded_text.task(SMALL)
    (data / "task.toml").write_text(
        f'name = "removal"\nmodel = "{base.name}"\ntemplate = "{made.template}"\ntokenizer_from_data = true\n'
        '[units]\nutility = "query"\n'
    )
    for name, rows in {
        "forget": made.forget, "retain": made.retain, "forget_queries": made.queries[FORGETTING], "retain_queries": made.queries[UTILITY],
    }.items():  # fmt: skip
        _lines(data / f"{name}.jsonl", rows)
    _loud(place / "plugin", made.forget[0].question + " " + made.forget[0].answer)
    paths = os.pathsep.join([str(place / "plugin"), *filter(None, [os.environ.get("PYTHONPATH")])])
    outputs: list[str] = []

    env = os.environ | {"FROC_STATE": str(place / "state"), "PYTHONPATH": paths}

    def froc(*words: str | Path, code: int = 0) -> None:
        done = commands.run([str(word) for word in words], env)
        outputs.append(done.stdout + done.stderr)
        assert done.returncode == code, outputs[-1]

    # one trial of each method
    froc("search", "--budget", "0.45", "--task", data, "--out", out, "--methods", "npo,grad_diff,loud", "--trials", "3",
         "--space", "lr=2e-3:8e-3", "--space", "epochs=2:4")  # fmt: skip
    froc("audit", "keygen", key)
    froc("audit", "report", out, "--key", key, "--out", place)
    (bundle,) = place.glob("*.froc-audit")
    froc("audit", "verify", bundle, "--key", f"{key}.pub", "--model", out / "model")
    froc("show", out)
    froc("show", out, "--page", out / "unsigned.html")
    for name, file in (
        ("page", "verified.html"),
        ("markdown", "summary.md"),
        ("model-card", "card.md"),
        ("cyclonedx", "bom.json"),
    ):
        froc("audit", "export", bundle, "--key", f"{key}.pub", "--format", name, "--out", out / file)
    # and what it says when something is wrong: another plan, an answer that is no text, a broken line, a blank answer
    froc("search", "--budget", "0.4", "--task", data, "--out", out, "--methods", "npo", code=2)
    froc("audit", "report", out, "--key", key, "--out", place, code=2)
    question = json.dumps(made.forget[2].question)
    for name, more in (
        ("forget_queries", f'{{"question": {question}, "answer": 7}}'),
        ("forget", f'{{"question": {question}, "answer": '),
        ("retain", f'{{"question": {question}, "answer": " "}}'),
    ):
        kept = (data / f"{name}.jsonl").read_text()
        (data / f"{name}.jsonl").write_text(f"{kept}{more}\n")
        froc("search", "--budget", "0.45", "--task", data, "--out", place / "other", code=2)
        (data / f"{name}.jsonl").write_text(kept)
    return Whole(out, bundle, "\n".join(outputs))


def files_that_hold(texts: set[str], files: Iterable[Path]) -> list[str]:
    """Names of files that hold one of the texts, read through the compression of Parquet."""
    return sorted({path.name for path in files if holds(texts, _bytes(path))})


def holds(texts: set[str], data: bytes) -> bool:
    """Whether a text is there as it is or as JSON writes it, in any case."""
    lower = data.lower()
    return any(form.encode().lower() in lower for text in texts for form in {text, json.dumps(text)[1:-1]})


def _bytes(path: Path) -> bytes:
    return pl.read_parquet(path).write_ndjson().encode() if path.suffix == ".parquet" else path.read_bytes()


def _left(whole: Whole) -> list[Path]:
    paths = [path for folder in (whole.run, whole.bundle) for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if whole.run / "model" not in path.parents]


def test_the_search_for_texts_finds_them(forgotten: set[str], tmp_path: Path) -> None:
    text = sorted(forgotten)[3]
    pl.DataFrame({"loss": [1, 2], "text": ["x", text]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text(json.dumps({"said": text.upper()}))
    (tmp_path / "c.json").write_text("{}")
    assert files_that_hold(forgotten, tmp_path.iterdir()) == ["a.parquet", "b.json"]
    assert min(map(len, forgotten)) > 4, "a text so short would be found anywhere"


def test_nothing_that_is_left_holds_what_was_forgotten(whole: Whole, forgotten: set[str]) -> None:
    left = _left(whole)
    names = {path.name for path in left}
    assert {
        "plan.json",
        "seal.json",
        "trials.jsonl",
        "calibration.parquet",
        "losses.csv",
        "report.html",
        "card.md",
        "bom.json",
    } <= names
    # what is compressed in another way would hide its text
    assert {path.suffix for path in left} <= {
        ".csv",
        ".db",
        ".html",
        ".json",
        ".jsonl",
        ".log",
        ".parquet",
        ".svg",
        ".png",
        ".lock",
        ".md",
        "",
    }
    assert files_that_hold(forgotten, left) == []


def test_what_the_tokenizer_gives_away_is_said(whole: Whole, forgotten: set[str]) -> None:
    """The chosen model's other files are looked through, too; its tokenizer was made from the data and knows their names."""
    model = [path for path in (whole.run / "model").iterdir() if path.suffix != ".safetensors"]
    assert set(files_that_hold(forgotten, model)) <= {"tokenizer.json"}
    assert json.loads((whole.run / "plan.json").read_text())["tokenizer"] == "from-the-data"
    assert LIMITS["tokenizer-from-the-data"] in html.unescape((whole.bundle / "report.html").read_text())


def test_nothing_that_was_said_holds_what_was_forgotten(whole: Whole, forgotten: set[str]) -> None:
    assert "PASS" in whole.output
    assert whole.output.count("froc: ") >= 5, "the errors were to be looked at, too"
    log = [json.loads(line) for line in (whole.run / "trials.jsonl").read_text().splitlines()]
    assert any(line["method"] == "loud" and line["status"] == "failed" for line in log)
    assert not holds(forgotten, whole.output.encode())

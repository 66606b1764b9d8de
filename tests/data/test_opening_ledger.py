"""Openings are counted query by query: whatever a file is called, however its rows are written, whoever asks."""

import json
import shutil
import stat
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc import hashing
from froc.atomic import replacing
from froc.certification.certify import Division
from froc.data.ledger_files import Counted, state_folder
from froc.data.normal_form import content, normal_form
from froc.data.opening_ledger import Opening, by_others, check, record
from froc.data.splits import opened_as, split
from froc.data.task import FORGETTING, UTILITY, Row, Task, Unit
from froc.errors import InputError
from froc.loss_table import check as check_table


def made(forgetting: list[Row], utility: list[Row], seed: int = 0, units: Unit = "query") -> Task:
    queries = {FORGETTING: tuple(forgetting), UTILITY: tuple(utility)}
    return Task(
        "t", (Row("x", "y"),), (Row("v", "w"),), queries, {FORGETTING: "query", UTILITY: units}, split_seed=seed
    )


def rows(of: str, count: int = 60, start: int = 0) -> list[Row]:
    return [Row(f"Où est {of} n° {i}?", f"à {of}{i % 7}", f"group {i % 9}") for i in range(start, start + count)]


TASK = made(rows("jardin"), rows("maison"))
Edit = Callable[[list[Row]], list[Row]]
EDITS: dict[str, Edit] = {
    "a trailing blank": lambda queries: [replace(queries[0], question=queries[0].question + " "), *queries[1:]],
    "blanks everywhere": lambda queries: [
        replace(row, question=f" {row.question}\n".replace(" ", "  ")) for row in queries
    ],
    "capitals": lambda queries: [replace(row, question=row.question.upper()) for row in queries],
    "Unicode form": lambda queries: [replace(row, answer=unicodedata.normalize("NFD", row.answer)) for row in queries],
    "punctuation": lambda queries: [replace(row, answer=f"\u201c{row.answer}\u201d.\u200b") for row in queries],
    "groups": lambda queries: [replace(row, group=f"renamed {row.group}") for row in queries],
    "a row more": lambda queries: [*queries, Row("another", "row")],
    "a row less": lambda queries: queries[1:],
    "a hundred rows more": lambda queries: [*queries, *rows("jardin", 100, 1000)],
    "another order": lambda queries: queries[::-1],
}


def opening(task: Task, share: float = 0.2, seal: str = "s", **options: bool) -> Opening:
    return record(split(task, share)[1].counted, f"plan {seal}", f"seal {seal}", 1, options.get("reopen", False))


def test_a_file_that_is_being_written_is_no_damage() -> None:
    """Nor one that a killed process left half written: its name is no look's."""
    opening(TASK)
    (looks,) = {path.parent for path in state_folder().rglob("000001.json")}
    with replacing(looks / "000002.json"):
        assert check(split(TASK, 0.2)[1].counted, "plan s", 1, False).number == 1


@pytest.mark.parametrize("pools", [(FORGETTING,), (UTILITY,), (FORGETTING, UTILITY)])
@pytest.mark.parametrize("edit", EDITS)
def test_the_same_queries_written_otherwise_are_a_further_look(edit: str, pools: tuple[str, ...]) -> None:
    assert opening(TASK) == Opening(1, 1, 0, len(counted(TASK)))
    queries = {
        pool: EDITS[edit](list(queries_of_risk)) if pool in pools else list(queries_of_risk)
        for pool, queries_of_risk in TASK.queries.items()
    }
    again = made(queries[FORGETTING], queries[UTILITY])
    with pytest.raises(
        InputError, match=r"of these queries were opened before \(1 time\(s\), 1 planned\).*--openings K"
    ):
        opening(again, seal="other")
    result = opening(again, seal="other", reopen=True)
    assert result.number == 2
    assert result.again == len(counted(TASK) & counted(again)) > 0.9 * len(counted(TASK)) - 1
    assert result.of == len(counted(again))


@pytest.mark.parametrize(
    "change", [{"split_seed": 3}, {"template": "{question}: {answer}"}, {"name": "of another model"}]
)
def test_another_split_template_or_model_is_a_further_look(change: dict[str, Any]) -> None:
    opening(TASK)
    assert opening(replace(TASK, **change), share=0.5, seal="other", reopen=True).number == 2


def counted(task: Task) -> set[tuple[str, str]]:
    opened = split(task, 0.2)[1].counted.opened
    return {(pool, name) for pool, names in opened.items() for name in names}


def test_fresh_queries_are_a_first_opening_and_pools_are_counted_apart() -> None:
    opening(TASK)
    assert opening(made(rows("ville"), rows("pont")), seal="fresh").number == 1
    assert opening(made(rows("maison"), rows("jardin")), seal="swapped").number == 1


def test_the_largest_count_over_the_queries_is_the_number() -> None:
    first, second, third = ({FORGETTING: frozenset(names)} for names in ("ab", "bc", "cd"))
    assert record(Counted(first), "1", "1", 2, False).number == 1
    assert record(Counted(second), "2", "2", 5, False) == Opening(2, 2, 1, 2)
    # c was opened once, d never; what was planned for c counts
    assert record(Counted(third), "3", "3", 5, False) == Opening(2, 2, 1, 2)
    with pytest.raises(InputError, match=r"2 of 2 of these queries were opened before \(2 time"):
        check(Counted(second), "4", 9, False)


def test_the_smallest_plan_counts_where_queries_had_different_ones() -> None:
    """Every look then had at most the level that the sum over them is made of."""
    record(Counted({FORGETTING: frozenset("a")}), "1", "1", 1, False)
    record(Counted({FORGETTING: frozenset("b")}), "2", "2", 9, False)
    with pytest.raises(InputError, match="1 planned"):
        check(Counted({FORGETTING: frozenset("ab")}), "3", 1, False)


def test_the_same_seal_is_no_new_opening_and_another_of_the_same_plan_is() -> None:
    division = split(TASK, 0.2)[1].counted
    first = record(division, "plan", "seal", 1, False)
    assert record(division, "plan", "seal", 1, False).number == first.number == 1
    assert check(division, "plan", 1, False).number == 1
    with pytest.raises(InputError, match="opened before"):
        record(division, "plan", "another seal", 1, False)


def test_a_repeated_opening_has_the_number_and_the_plan_of_its_first_time() -> None:
    """Checked under its plan, and recorded under its seal, whatever is planned by now."""
    first, second = (Counted({FORGETTING: frozenset(names)}) for names in ("ab", "bc"))
    record(first, "1", "seal 1", 4, False)
    record(second, "2", "seal 2", 4, False)
    for again in (check(second, "2", 9, False), record(second, "another", "seal 2", 9, False)):
        assert (again.number, again.planned) == (2, 4)
    for again in (check(first, "1", 9, False), record(first, "another", "seal 1", 9, False)):
        assert (again.number, again.planned) == (1, 4)
    # the same plan and seal about other queries are a further opening
    assert record(Counted({FORGETTING: frozenset("ad")}), "1", "seal 1", 9, False).number == 2


def test_what_a_search_has_looked_at_is_not_fresh_for_another() -> None:
    opening(TASK, share=0.5)
    looked = split(TASK, 0.5)[1].counted.searched
    assert not set(looked[FORGETTING]) & set(split(TASK, 0.5)[1].counted.opened[FORGETTING])
    assert by_others(Counted(looked), "plan of somebody else")
    with pytest.raises(InputError, match="opened before"):
        check(Counted(looked), "another", 1, False)


def test_two_at_the_same_moment_are_two_openings() -> None:
    division = split(TASK, 0.2)[1].counted
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda k: record(division, f"plan {k}", f"seal {k}", 8, False).number, range(8)))
    assert sorted(numbers) == list(range(1, 9))


def test_openings_of_older_versions_count(tmp_path: Path) -> None:
    """They were kept by the digest of whole pools, in one file each."""
    place = tmp_path / "state" / "openings"
    place.mkdir(parents=True)
    old = place / f"{hashing.sha256_json(opened_as(TASK))}.json"
    old.write_text(json.dumps({"planned": 2, "seals": [["plan of then", "seal of then"]]}), encoding="utf-8")
    division = split(TASK, 0.2)[1].counted
    assert record(division, "plan of then", "seal of then", 1, False) == Opening(1, 2)
    assert by_others(division, "another")
    assert not by_others(division, "plan of then")
    second = record(division, "plan", "seal", 1, False)
    assert (second.number, second.planned, second.again) == (2, 2, second.of)
    with pytest.raises(InputError, match="2 time"):
        check(division, "third", 1, False)
    old.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="none is granted"):
        check(division, "third", 1, True)


def test_of_older_counts_the_largest_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of all pools of a search holds those of its parts."""
    monkeypatch.setenv("FROC_STATE", str(tmp_path))
    place = tmp_path / "openings"
    place.mkdir()
    pools = ({"forgetting": "a"}, {"utility": "b"}, {"utility": "c"})
    for queries, seals in zip(pools, (1, 3, 0), strict=True):
        document = {"planned": 9, "seals": [[f"plan {i}", f"seal {i}"] for i in range(seals)]}
        (place / f"{hashing.sha256_json(queries)}.json").write_text(json.dumps(document), encoding="utf-8")
    assert check(Counted({"forgetting": frozenset("a")}, older=pools), "plan", 9, False).number == 4


@pytest.mark.parametrize(
    "harm", ["a look is gone", "a look is torn", "the key is gone", "another key", "no key at all"]
)
def test_a_damaged_ledger_grants_nothing(harm: str, tmp_path: Path) -> None:
    place = tmp_path / "state" / "openings"
    for number in (1, 2):
        opening(made(rows(f"lieu {number}"), rows(f"objet {number}")), seal=str(number))
    first = place / "looks" / "000001.json"
    match harm:
        case "a look is gone":
            first.unlink()
        case "a look is torn":
            first.write_bytes(first.read_bytes()[:-9])
        case "the key is gone":
            (place / "key").unlink()
        case "another key":
            (place / "key").write_text("0" * 64 + "\n")
        case _:
            (place / "key").write_text("key")
    with pytest.raises(InputError, match="is damaged; the number of openings is unknown, so none is granted"):
        check(split(TASK, 0.2)[1].counted, "plan", 1, True)


def test_the_ledger_shows_no_text_and_nothing_that_a_text_can_be_tried_against(tmp_path: Path) -> None:
    opening(TASK)
    place = tmp_path / "state" / "openings"
    assert stat.S_IMODE((place / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    text = "".join(path.read_text() for path in place.rglob("*.json"))
    for row in TASK.queries[FORGETTING]:
        alone = hashing.hmac_sha256(b"froc drawn", content(row.question, row.answer))
        assert not any(
            word[:16] in text for word in (row.question, row.answer, content(row.question, row.answer), alone)
        )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written.*FROC_STATE"):
        check(Counted({}), "plan", 1, False)


# the split


@given(text=st.text(max_size=40))
def test_a_normal_form_is_its_own_and_ignores_case_blanks_and_unicode_form(text: str) -> None:
    form = normal_form(text)
    assert normal_form(form) == form
    for second in (f" {text}\n", unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)):
        assert normal_form(second) == form


def test_texts_of_punctuation_alone_stay_apart() -> None:
    assert normal_form("?") != normal_form("!")
    assert normal_form("5 + 3") != normal_form("5 < 3")
    assert normal_form("don\u2019t") == normal_form("DON'T") != normal_form("do")


# tables that are certified


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_units_that_risks_share_are_divided_alike(share: float) -> None:
    """With other units beside them, ranks within each risk once put some on both sides."""
    names = [("a", f"u{i}") for i in range(60)] + [("b", f"u{i}") for i in range(40, 600)] + [("c", "u1"), ("c", "u2")]
    frame = check_table(
        pl.DataFrame({"config": "c", "risk": [r for r, _ in names], "query": [u for _, u in names], "loss": 0.0})
    )
    for seed in range(20):
        result = Division(share, seed).of(frame)
        assert result.group_by("unit").agg(pl.col("split").n_unique())["split"].max() == 1
        assert result.group_by("risk").agg(pl.col("split").n_unique())["split"].min() == 2
        more = Division(share, seed).of(frame.filter(pl.col("risk") != "b"))
        moved = result.join(more, on=["risk", "unit"], suffix="_more").filter(pl.col("split") != pl.col("split_more"))
        assert set(moved["unit"]) <= {"u1", "u2"}
    with pytest.raises(InputError, match="1 units are too few"):
        Division(share).of(frame.filter(pl.col("unit") == "u1", pl.col("risk") == "a"))


@pytest.mark.parametrize("harm", ["all", "folder", "emptied"])
def test_looks_that_were_taken_away_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    monkeypatch.setenv("FROC_STATE", str(tmp_path))
    first = Counted({"forgetting": frozenset({"a", "b"})}, {})
    record(first, "plan", "seal", 1, False)
    looks = tmp_path / "openings" / "looks"
    if harm == "folder":
        shutil.rmtree(looks)
    elif harm == "emptied":
        path = looks / "000001.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"queries": {}}))
    else:
        for path in looks.iterdir():
            path.unlink()
    with pytest.raises(InputError, match="damaged"):
        check(first, "other plan", 1, False)


def test_a_count_below_zero_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would let the only opening be taken away."""
    monkeypatch.setenv("FROC_STATE", str(tmp_path))
    counted = Counted({"forgetting": frozenset({"a"})}, {})
    record(counted, "plan", "seal", 1, False)
    place = tmp_path / "openings"
    (place / "looks" / "000001.json").unlink()
    count = json.loads((place / "count.json").read_text())
    (place / "count.json").write_text(json.dumps(count | {"looks": -1}))
    with pytest.raises(InputError, match="damaged"):
        check(counted, "plan 2", 1, False)
    (place / "count.json").write_text(json.dumps(count | {"looks": 0}))
    assert check(counted, "plan 2", 1, False).number == 1


def test_a_look_that_was_not_counted_any_more_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the look and the count."""
    monkeypatch.setenv("FROC_STATE", str(tmp_path))
    counted = [Counted({"forgetting": frozenset({name})}, {}) for name in "ab"]
    record(counted[0], "plan", "seal", 1, False)
    kept = (tmp_path / "openings" / "count.json").read_bytes()
    record(counted[1], "plan 2", "seal 2", 1, False)
    (tmp_path / "openings" / "count.json").write_bytes(kept)
    with pytest.raises(InputError, match="were opened before"):
        check(counted[1], "plan 3", 1, False)


@pytest.mark.parametrize(
    "code", [0xFE00, 0xFE0F, 0xE0100, 0xE01EF, 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0, 0x180B, 0x180F, 0x17B4, 0x17B5, 0x2065, 0x200B]
)  # fmt: skip
def test_what_cannot_be_seen_makes_no_text_another(code: int) -> None:
    for text in ("Where is Ada?", "cafe\u0301", "?"):
        for place in range(len(text) + 1):
            assert normal_form(text[:place] + chr(code) + text[place:]) == normal_form(text)

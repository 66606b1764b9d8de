"""Openings are counted query by query: whatever a file is called, however its rows are written, whoever asks."""

import json
import shutil
import stat
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from froc import digest
from froc.certifying import Division, certify
from froc.data import FORGETTING, UTILITY, Row, Task, keyed_queries, opened_as, split
from froc.errors import InputError
from froc.losses import check as check_table
from froc.normal_form import content, normal_form
from froc.openings import Counted, Opening, by_others, check, record


def made(forgetting: list[Row], utility: list[Row], seed: int = 0, units: str = "query") -> Task:
    queries = {FORGETTING: tuple(forgetting), UTILITY: tuple(utility)}
    return Task(
        "t", (Row("x", "y"),), (Row("v", "w"),), queries, {FORGETTING: "query", UTILITY: units}, split_seed=seed
    )


def rows(of: str, count: int = 60, start: int = 0) -> list[Row]:
    return [Row(f"Où est {of} n° {i}?", f"à {of}{i % 7}", f"group {i % 9}") for i in range(start, start + count)]


TASK = made(rows("jardin"), rows("maison"))
Edit = Callable[[list[Row]], list[Row]]
EDITS: dict[str, Edit] = {
    "a trailing blank": lambda some: [replace(some[0], question=some[0].question + " "), *some[1:]],
    "blanks everywhere": lambda some: [replace(row, question=f" {row.question}\n".replace(" ", "  ")) for row in some],
    "capitals": lambda some: [replace(row, question=row.question.upper()) for row in some],
    "Unicode form": lambda some: [replace(row, answer=unicodedata.normalize("NFD", row.answer)) for row in some],
    "punctuation": lambda some: [replace(row, answer=f"\u201c{row.answer}\u201d.\u200b") for row in some],
    "groups": lambda some: [replace(row, group=f"renamed {row.group}") for row in some],
    "a row more": lambda some: [*some, Row("another", "row")],
    "a row less": lambda some: some[1:],
    "a hundred rows more": lambda some: [*some, *rows("jardin", 100, 1000)],
    "another order": lambda some: some[::-1],
}


def opening(task: Task, share: float = 0.2, seal: str = "s", **said: bool) -> Opening:
    return record(split(task, share)[1].counted, f"plan {seal}", f"seal {seal}", 1, said.get("reopen", False))


@pytest.mark.parametrize("pools", [(FORGETTING,), (UTILITY,), (FORGETTING, UTILITY)])
@pytest.mark.parametrize("edit", EDITS)
def test_the_same_queries_written_otherwise_are_a_further_look(edit: str, pools: tuple[str, ...]) -> None:
    assert opening(TASK) == Opening(1, 1, 0, len(counted(TASK)))
    queries = {pool: EDITS[edit](list(some)) if pool in pools else list(some) for pool, some in TASK.queries.items()}
    again = made(queries[FORGETTING], queries[UTILITY])
    with pytest.raises(
        InputError, match=r"of these queries were opened before \(1 time\(s\), 1 planned\).*--openings K"
    ):
        opening(again, seal="other")
    found = opening(again, seal="other", reopen=True)
    assert found.number == 2
    assert found.again == len(counted(TASK) & counted(again)) > 0.9 * len(counted(TASK)) - 1
    assert found.of == len(counted(again))


@pytest.mark.parametrize(
    "change", [{"split_seed": 3}, {"template": "{question}: {answer}"}, {"name": "of another model"}]
)
def test_another_split_template_or_model_is_a_further_look(change: dict[str, object]) -> None:
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
    some = split(TASK, 0.2)[1].counted
    first = record(some, "plan", "seal", 1, False)
    assert record(some, "plan", "seal", 1, False).number == first.number == 1
    assert check(some, "plan", 1, False).number == 1
    with pytest.raises(InputError, match="opened before"):
        record(some, "plan", "another seal", 1, False)


def test_what_a_search_has_looked_at_is_not_fresh_for_another() -> None:
    opening(TASK, share=0.5)
    looked = split(TASK, 0.5)[1].counted.searched
    assert not set(looked[FORGETTING]) & set(split(TASK, 0.5)[1].counted.opened[FORGETTING])
    assert by_others(Counted(looked), "plan of somebody else")
    with pytest.raises(InputError, match="opened before"):
        check(Counted(looked), "another", 1, False)


def test_two_at_the_same_moment_are_two_openings() -> None:
    some = split(TASK, 0.2)[1].counted
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda k: record(some, f"plan {k}", f"seal {k}", 8, False).number, range(8)))
    assert sorted(numbers) == list(range(1, 9))


def test_openings_of_older_versions_count(tmp_path: Path) -> None:
    """They were kept by the digest of whole pools, in one file each."""
    place = tmp_path / "state" / "openings"
    place.mkdir(parents=True)
    old = place / f"{digest.of_json(opened_as(TASK))}.json"
    old.write_text(json.dumps({"planned": 2, "seals": [["plan of then", "seal of then"]]}), encoding="utf-8")
    some = split(TASK, 0.2)[1].counted
    assert record(some, "plan of then", "seal of then", 1, False) == Opening(1, 2)
    assert by_others(some, "another")
    assert not by_others(some, "plan of then")
    second = record(some, "plan", "seal", 1, False)
    assert (second.number, second.planned, second.again) == (2, 2, second.of)
    with pytest.raises(InputError, match="2 time"):
        check(some, "third", 1, False)
    old.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="none is granted"):
        check(some, "third", 1, True)


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
    said = "".join(path.read_text() for path in place.rglob("*.json"))
    for row in TASK.queries[FORGETTING]:
        alone = digest.keyed(b"froc drawn", content(row.question, row.answer))
        assert not any(
            word[:16] in said for word in (row.question, row.answer, content(row.question, row.answer), alone)
        )


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written.*FROC_STATE"):
        check(Counted({}), "plan", 1, False)


# the split


def sides(task: Task, share: float = 0.2) -> dict[tuple[str, str, str], bool]:
    """(pool, normal form) -> whether the search looks at it."""
    view, sealed = split(task, share)
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    parts = ((view.queries, True), (opened, False))
    return {
        (pool, normal_form(q.row.question), normal_form(q.row.answer)): side
        for part, side in parts
        for pool, some in part.items()
        for q in some
    }


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_moves_no_row_to_the_other_side(edit: str) -> None:
    before = sides(TASK)
    after = sides(made(EDITS[edit](rows("jardin")), EDITS[edit](rows("maison"))))
    assert len(before.keys() & after.keys()) >= len(before) - 2
    assert {key: before[key] for key in before.keys() & after.keys()} == {
        key: after[key] for key in before.keys() & after.keys()
    }


@given(place=st.integers(0, 59), text=st.text(min_size=1, max_size=5), seed=st.integers(0, 99))
def test_editing_one_row_moves_no_other(place: int, text: str, seed: int) -> None:
    some = rows("jardin")
    some[place] = replace(some[place], question=some[place].question + "x" + text)
    before, after = sides(made(rows("jardin"), rows("maison"), seed)), sides(made(some, rows("maison"), seed))
    assert sum(before.get(key) != side for key, side in after.items()) <= 1


def test_a_unit_that_pools_share_is_on_one_side() -> None:
    shared = rows("jardin")
    for units in ("query", "group"):
        task = made(shared, [*shared, *rows("maison", 300)], units=units)
        task = replace(task, units={FORGETTING: units, UTILITY: units})
        found: dict[str, set[bool]] = {}
        view, sealed = split(task, 0.2)
        opened = sealed.open({"calibration": sealed.digests, "candidates": []})
        for part, side in ((view.queries, True), (opened, False)):
            for q in (q for some in part.values() for q in some):
                found.setdefault(q.row.group if units == "group" else q.row.question, set()).add(side)
        assert all(len(one) == 1 for one in found.values())
        assert {True} in found.values()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_kept_on_average(share: float) -> None:
    """Binomial: four standard deviations, over 20,000 places in all."""
    count = 0
    for seed in range(20):
        task = made(rows("jardin", 500), rows("maison", 500), seed)
        count += sum(q.place < share for pool in task.queries for q in keyed_queries(task, pool))
    assert abs(count - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("later", [0, 2])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_a_handful_of_units_has_some_on_every_side(count: int, later: int) -> None:
    for seed in range(50):
        task = made(rows("jardin", count), rows("maison", count), seed)
        if count < later + 2:
            with pytest.raises(InputError, match="too few"):
                split(task, 0.01, later=later)
            continue
        view, sealed = split(task, 0.01, later=later)
        assert min(len(some) for some in view.queries.values()) >= 1
        assert min(sealed.units.values()) >= 1


@given(text=st.text(max_size=40))
def test_a_normal_form_is_its_own_and_ignores_case_blanks_and_unicode_form(text: str) -> None:
    form = normal_form(text)
    assert normal_form(form) == form
    for other in (f" {text}\n", unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)):
        assert normal_form(other) == form


def test_texts_of_punctuation_alone_stay_apart() -> None:
    assert normal_form("?") != normal_form("!")
    assert normal_form("5 + 3") != normal_form("5 < 3")
    assert normal_form("don\u2019t") == normal_form("DON'T") != normal_form("do")


# tables that are certified


def table(path: Path, names: list[str], loss: float = 0.0, config: str = "c") -> Path:
    pl.DataFrame(
        {"config": config, "risk": "forgetting", "query": names, "loss": [loss, *[0.0] * (len(names) - 1)]}
    ).write_csv(path)
    return path


NAMES = [f"q{i}" for i in range(100)]


def test_a_table_says_how_often_it_was_certified(tmp_path: Path) -> None:
    first = certify(table(tmp_path / "a.csv", NAMES), 0.1).document
    assert first["looks"] == {"times": 1, "ways": 1, "sealed": False}
    assert first["opening"]["statement"].startswith("first and only")
    assert not any("was certified" in line for line in first["warnings"])
    # the same again asks nothing new, in whatever file or order
    again = certify(table(tmp_path / "b.csv", NAMES[::-1]), 0.1).document
    assert (again["looks"]["times"], again["looks"]["ways"], again["opening"]["number"]) == (2, 1, 1)
    for number, (names, said) in enumerate(
        [(NAMES, {"confidence": 0.8}), ([n.upper() for n in NAMES[1:]], {}), (NAMES, {"bound": "hoeffding_bentkus"})],
        start=2,
    ):
        certificate = certify(table(tmp_path / "c.csv", names), 0.1, **said)
        assert certificate.document["looks"] == {"times": number + 1, "ways": number, "sealed": False}
        assert certificate.document["opening"]["number"] == number
        assert any(
            f"certified {number + 1} times (with {number} different sets" in line for line in certificate.sentences()
        )
    other = certify(table(tmp_path / "d.csv", [f"other {n}" for n in NAMES]), 0.1).document
    assert other["looks"]["times"] == 1


def test_another_model_on_the_same_queries_is_another_way(tmp_path: Path) -> None:
    certify(table(tmp_path / "a.csv", NAMES), 0.1)
    assert certify(table(tmp_path / "a.csv", NAMES, 0.5, "d"), 0.1).document["looks"] == {
        "times": 2,
        "ways": 2,
        "sealed": False,
    }


def test_names_that_are_mere_numbers_are_no_names(tmp_path: Path) -> None:
    """Every log counts its rows from 0: other data with another number of rows are no second look."""
    for count, times in ((100, 1), (120, 1), (100, 2)):
        found = certify(table(tmp_path / "a.csv", [str(i) for i in range(count)]), 0.1).document
        assert found["looks"]["times"] == times


def test_a_runs_own_calibration_file_is_known(tmp_path: Path) -> None:
    sealed = split(TASK, 0.2)[1]
    record(sealed.counted, "plan", "seal", 1, False)
    names = sealed.order.filter(pl.col("risk") == FORGETTING)["query"].to_list()
    found = certify(table(tmp_path / "copy.csv", names), 0.5)
    assert found.document["looks"]["sealed"]
    assert any("calibration queries of a search on this machine" in line for line in found.document["warnings"])


def test_frames_are_not_counted_and_no_table_fails_for_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(tmp_path / "a.csv", NAMES)
    for _ in range(3):
        assert "looks" not in certify(pl.read_csv(path), 0.1).document
    assert not (tmp_path / "state").exists()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FROC_STATE", str(tmp_path / "file"))
    found = certify(path, 0.1)
    assert found.chosen == "c"
    assert any("could not be counted" in line for line in found.document["warnings"])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_units_that_risks_share_are_divided_alike(share: float) -> None:
    """With other units beside them, ranks within each risk once put some on both sides."""
    names = [("a", f"u{i}") for i in range(60)] + [("b", f"u{i}") for i in range(40, 600)] + [("c", "u1"), ("c", "u2")]
    frame = check_table(
        pl.DataFrame({"config": "c", "risk": [r for r, _ in names], "query": [u for _, u in names], "loss": 0.0})
    )
    for seed in range(20):
        found = Division(share, seed).of(frame)
        assert found.group_by("unit").agg(pl.col("split").n_unique())["split"].max() == 1
        assert found.group_by("risk").agg(pl.col("split").n_unique())["split"].min() == 2
        more = Division(share, seed).of(frame.filter(pl.col("risk") != "b"))
        moved = found.join(more, on=["risk", "unit"], suffix="_more").filter(pl.col("split") != pl.col("split_more"))
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

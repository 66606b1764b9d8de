"""Recommendation benchmarks (MovieLens, GoodReads): ratings become questions, and users are forgotten whole."""

import math
from pathlib import Path
from typing import Any

from froc.data.benchmarks import movielens as movielens_files
from froc.data.benchmarks import read
from froc.data.task import FORGETTING, UTILITY
from tests.data.benchmark_files import goodreads, measured, movielens, refused, trained, write


def _old_release(folder: Path, name: str) -> Path:
    """The rows of `movielens` as an older release writes them."""
    between, item, between_items = {"u.data": ("\t", "u.item", "|"), "ratings.dat": ("::", "movies.dat", "::")}[name]
    rows = movielens()
    folder.mkdir()
    lines = [
        between.join(str(row[key]) for key in ("userId", "movieId", "rating", "timestamp")) for row in rows["ratings"]
    ]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    titles = [between_items.join([str(row["movieId"]), row["title"], "é|0"]) for row in rows["movies"]]
    (folder / item).write_text("\n".join(titles), encoding="latin-1")
    return folder


def test_a_user_is_forgotten_whole(tmp_path: Path) -> None:
    files = movielens()
    # the order of rows is not that of time
    task = read("movielens:forget20", write(tmp_path / "json", files | {"ratings": files["ratings"][::-1]}))
    gone = {row.group for row in (*task.forget, *task.queries[FORGETTING])}
    assert len(gone) == 2
    assert gone.isdisjoint(row.group for row in (*task.retain, *task.queries[UTILITY]))
    assert {row.group for row in task.retain}.isdisjoint(row.group for row in task.queries[UTILITY])
    assert (len(task.forget), len(task.queries[FORGETTING]), task.units[UTILITY]) == (14, 14, "group")
    assert {(row.answer, *row.others) for row in (*trained(task), *measured(task))} == {
        ("Yes.", "No."),
        ("No.", "Yes."),
    }
    # the first question about user 1: items 1 to 10 in the order of time, liked from 4 stars on, and then item 11
    row = next(
        row
        for row in (*trained(task), *measured(task))
        if row.group == "user 1" and row.question.endswith("Film number 11 (1990)?")
    )
    liked = [f"Film number {1 + k} (1990)" for k in range(10) if 1 + k % 5 >= 4]
    assert row.question.splitlines()[0] == f"Films that a user liked: {'; '.join(liked)}"
    assert row.answer == "No."
    csv = tmp_path / "csv"
    csv.mkdir()
    for name, rows in files.items():
        (csv / f"{name}.csv").write_text(
            "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]), encoding="utf-8"
        )
    for folder in (csv, _old_release(tmp_path / "100k", "u.data"), _old_release(tmp_path / "1m", "ratings.dat")):
        again = read("movielens:forget20", folder)
        assert (again.forget, again.retain, again.queries) == (task.forget, task.retain, task.queries)
    (tmp_path / "1m" / "movies.dat").write_text("1,Film\n", encoding="utf-8")
    refused("movielens:forget20", tmp_path / "1m", "movies.dat row 1 has not 2 fields separated by '::'")
    (tmp_path / "1m" / "movies.dat").unlink()
    refused("movielens:forget20", tmp_path / "1m", "has no movies.dat")


def test_listed_users_and_wrong_ratings(tmp_path: Path) -> None:
    files: dict[str, list[Any]] = goodreads()
    folder = write(tmp_path, files)
    refused("goodreads:listed", folder, "has no forget_users.txt; write the users to forget there, one a line")
    (folder / "forget_users.txt").write_text("3\n7\n", encoding="utf-8")
    task = read("goodreads:listed", folder)
    assert {row.group for row in task.forget} == {"user 3", "user 7"}
    # a book that is on the shelf and not rated is not asked about
    assert all("Book number" in row.question for row in task.forget)
    rated = [row for row in files["ratings"] if row["user_id"] == 3 and row["rating"] > 0]
    assert len([row for row in (*task.forget, *task.queries[FORGETTING]) if row.group == "user 3"]) == len(rated) - 10
    (folder / "forget_users.txt").write_text("3\n99\n", encoding="utf-8")
    refused("goodreads:listed", folder, "forget_users.txt: 1 of 2 users")
    write(folder, {"books": files["books"][:5]})
    refused("goodreads:forget20", folder, "no title is given for item")
    write(folder, {"ratings": [files["ratings"][0] | {"rating": "good"}]})
    refused("goodreads:forget20", folder, "ratings.json row 1: 'rating' must be a number")
    write(folder, {"ratings": [files["ratings"][0] | {"rating": math.nan}]})
    refused("goodreads:forget20", folder, "ratings.json row 1: 'rating' must be a number")
    write(folder, files | {"ratings": files["ratings"][:30]})
    refused("goodreads:forget20", folder, "too few to forget some")


def test_times_order_ratings_where_all_rows_have_them_and_rows_do_otherwise(tmp_path: Path) -> None:
    files = goodreads()
    rows = [row | {"timestamp": 10**9 + place} for place, row in enumerate(files["ratings"])]
    by_time = read("goodreads:forget20", write(tmp_path, files | {"ratings": rows[::-1]}))
    by_row = read("goodreads:forget20", write(tmp_path, files))
    assert (by_time.forget, by_time.retain, by_time.queries) == (by_row.forget, by_row.retain, by_row.queries)
    # a row without a time: none counts
    mixed = [row | {"timestamp": "Friday" if place % 7 else 10**9} for place, row in enumerate(rows)]
    partly = read("goodreads:forget20", write(tmp_path, files | {"ratings": mixed}))
    assert (partly.forget, partly.retain, partly.queries) == (by_row.forget, by_row.retain, by_row.queries)


def test_books_that_are_counted_anew_need_their_map(tmp_path: Path) -> None:
    files = goodreads()
    task = read("goodreads:forget20", write(tmp_path / "plain", files))
    anew = write(tmp_path / "anew", {"goodreads_books": files["books"]})
    lines = ["user_id,book_id,is_read,rating,is_reviewed"]
    lines += [f"{row['user_id']},{row['book_id'] + 500},1,{row['rating']},0" for row in files["ratings"]]
    (anew / "goodreads_interactions.csv").write_text("\n".join(lines), encoding="utf-8")
    refused("goodreads:forget20", anew, "counts books anew, and no book_id_map.csv; take both from one release")
    (anew / "book_id_map.csv").write_text(
        "book_id_csv,book_id\n" + "\n".join(f"{i + 500},{i}" for i in range(30)), encoding="utf-8"
    )
    again = read("goodreads:forget20", anew)
    assert (again.forget, again.retain, again.queries) == (task.forget, task.retain, task.queries)


def test_titles_of_old_files_are_read_in_either_encoding_and_end_at_line_ends_alone(tmp_path: Path) -> None:
    """In UTF-8 the second byte of Å is 0x85, which ends a line in Latin-1."""
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "movies.dat").write_bytes("1::Ådalen (1977)::g\r\n2::Amélie (2001)::g\n".encode(encoding))
        rows = [fields for _, fields in movielens_files._separated(tmp_path / "movies.dat", "::", 2)]
        assert rows == [["1", "Ådalen (1977)"], ["2", "Amélie (2001)"]]

"""`froc.search` in Python: the command's own work, with a result that prints and plots."""

import json
from pathlib import Path
from typing import Any

import pytest

import froc
import froc.search
from froc.errors import InputError
from froc.search.api import Run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One trial on the embedded task, at budgets that it keeps."""
    place = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(place.parent / "state"))
        return froc.search.run(
            {"forgetting": 0.9, "utility": 0.9},
            out=place,
            methods=["npo"],
            trials=1,
            candidates=1,
            sweep=False,
            progress=False,
            seed=3,
        )


def test_a_search_comes_back_as_values(done: Run) -> None:
    assert done.certificate.certified
    assert done.certificate.chosen in done.certificate.certified
    assert done.model is not None
    assert (done.model / "config.json").is_file()
    assert {"config", "method", "status", "forgetting", "utility"} <= set(done.trials.columns)
    assert set(done.certificate.table["config"]) <= set(done.trials["config"])


def test_a_search_prints_and_plots(done: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert done.certificate.reason in str(done)
    assert "<table" in done._repr_html_()
    assert [axes.get_title("left") for axes in done.plot().axes] == ["forgetting, budget 0.9", "utility, budget 0.9"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("budget", "more", "words"),
    [
        (2.0, {}, "outside"),
        (0.1, {"trails": 3}, "froc.search.run has no setting 'trails'"),
        (0.1, {"smapler": "tpe"}, "did you mean 'sampler'"),
        ({"forgeting": 0.1, "utility": 0.1}, {}, "did you mean 'forgetting'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path: Path, budget: float | dict[str, float], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        froc.search.run(budget, out=tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_a_search_like_an_earlier_one_takes_its_options_and_begins_with_its_best(done: Run, tmp_path: Path) -> None:
    again = froc.search.run(like=done.out, out=tmp_path / "run", progress=False, seed=4)
    old, new = (json.loads((place / "plan.json").read_text(encoding="utf-8")) for place in (done.out, again.out))
    assert new["budget"] == {"forgetting": 0.9, "utility": 0.9}
    assert (new["search"]["trials"], new["search"]["sweep"], new["search"]["seed"]) == (1, False, 4)
    (first,) = new["like"]["first"]
    assert again.trials["method"].to_list() == ["npo"] == [first["method"]]
    # other queries of the same population, so that nothing is opened twice
    assert new["questions"] != old["questions"]
    assert again.certificate.document["opening"]["number"] == 1
    with pytest.raises(InputError, match="like=RUN"):
        froc.search.run(out=tmp_path / "none")

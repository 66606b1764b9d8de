"""Every example of docs/how-to/extending.md, run as code of another package."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from froc import plugins
from froc.bounds import Bound
from froc.data.prompts import PromptFormat
from froc.data.rows import Row
from froc.errors import InputError
from froc.formats import Format
from froc.measuring.attack import Attack, Material
from froc.measuring.metric import Metric, Observation
from froc.plugins import make
from froc.procedures import certified
from froc.training.base_statistics import PLACEHOLDER_CONTEXT
from froc.training.method import Method

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "extending.md"
EXAMPLES = re.findall(
    r"`froc/(\w+)/(\w+)\.py`.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples as a package with entry points."""
    about = tmp_path / "examples_of_the_page-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: examples-of-the-page\nVersion: 1.0\n", "utf-8")
    points = []
    for kind, name, code in EXAMPLES:
        (tmp_path / f"example_{name}.py").write_text(code, encoding="utf-8")
        (owner,) = re.findall(r"^class (\w+)", code, flags=re.MULTILINE)
        points.append(f"[froc.{kind}]\n{name} = example_{name}:{owner}\n")
    (about / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    plugins._outside.cache_clear()


def test_the_page_has_an_example_of_every_kind() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == {"methods", "metrics", "attacks", "bounds", "procedures", "formats"}


def test_the_metric() -> None:
    hit = np.array([[True, False], [False, True]])
    observation = Observation(hit, np.zeros((2, 2), dtype=np.float32), np.array([2, 2]))
    assert make(Metric, "first_token").scores(observation).tolist() == [1.0, 0.0]


def test_the_attack() -> None:
    material = Material((), (), (), PromptFormat("{question} {answer}"))
    (form,) = make(Attack, "shouting").ask([Row("who?", "she")], material)
    assert [(row.question, row.answer) for row in form] == [("WHO?", "she")]


def test_the_bound_holds_and_inverts_itself() -> None:
    bound = make(Bound, "plain_hoeffding")
    losses = np.repeat(np.array([[0] * 90 + [1000] * 10], dtype=np.int16), 2, axis=0)
    upper = bound.upper(losses, 0.1)
    assert bound.p_value(losses, upper) == pytest.approx(0.1)
    assert upper == pytest.approx(0.1 + np.sqrt(np.log(10) / 200))


def test_the_procedure() -> None:
    flags = certified("weighted-bonferroni", np.array([0.06, 0.06]), np.array([2.0, 1.0]), 0.1)
    assert flags.tolist() == [True, False]


def test_the_format(tmp_path: Path) -> None:
    good, bad = tmp_path / "npo.json", tmp_path / "cut.json"
    good.write_text('{"forgetting": {"q1": 0.25, "q2": 0}}', encoding="utf-8")
    bad.write_text('{"forgetting": [1, 2', encoding="utf-8")
    table: Any = make(Format, "pairs").read([good], {}).losses
    assert table["loss"].to_list() == [250, 0]
    with pytest.raises(InputError, match=r"cut\.json"):
        make(Format, "pairs").read([bad], {})


def test_the_method() -> None:
    method = make(Method, "half_ascent", {"forget_weight": 0.25})
    (phase,) = method.phases(PLACEHOLDER_CONTEXT)
    assert phase.roles == ("forget", "retain")

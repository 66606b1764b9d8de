"""Methods that train nothing of what --train lets move are left out, or refused, before anything is trained."""

from typing import Any

import pytest

from froc.errors import InputError
from froc.hyperparameters import Range, spaces
from froc.models.base import Base
from froc.models.trainable import parse
from froc.plugins import find
from froc.search.optuna.space import group
from froc.search.optuna.trainable_space import fitting, inside
from froc.training.method import Method
from tests.training.small import llama


def base(train: str, layers: int = 10) -> Base:
    model = llama(20, layers=layers)
    no_tokenizer: Any = None
    return Base("small", model, no_tokenizer, parse(train, model), "")


def space(*names: str) -> dict[str, Any]:
    return {name: dict(spaces(find(Method, name))) for name in names}


def test_what_trains_nothing_is_left_out_of_a_group_and_refused_by_name() -> None:
    last = base("layers:last=2")
    kept, notes = fitting(space("npo", "rmu"), last, (), "layers:last=2")
    assert list(kept) == ["npo"]
    assert notes == ["left out: rmu trains other parameters than --train layers:last=2 lets move"]
    with pytest.raises(InputError, match="rmu trains other parameters than --train layers:last=2"):
        fitting(space("npo", "rmu"), last, ("npo", "rmu"), "layers:last=2")
    with pytest.raises(InputError, match="no method is left"):
        fitting(space("rmu"), last, ("standard",), "layers:last=2")


def test_a_depth_that_fits_is_kept_and_the_rest_of_its_range_left_out() -> None:
    kept, notes = fitting(space("rmu"), base("layers:last=4"), ("rmu",), "layers:last=4")
    depth = kept["rmu"]["depth"]
    assert isinstance(depth, Range)
    # blocks 6 to 9 may move, and the method trains three that end at round(9 depth)
    assert 0.6 < depth.low < 0.63
    assert depth.high == 0.8
    assert len(notes) == 1
    assert inside("rmu", kept["rmu"]) == {"depth": depth.low}
    assert vars(find(Method, "rmu")(**inside("rmu", kept["rmu"])))["depth"] == depth.low


def test_where_all_may_move_nothing_changes() -> None:
    spaces = space(*group("standard"))
    for train in ("full", "lora:rank=2"):
        kept, notes = fitting(spaces, base(train), (), train)
        assert kept == spaces
        assert not notes
        assert not any(inside(name, fields) for name, fields in kept.items())

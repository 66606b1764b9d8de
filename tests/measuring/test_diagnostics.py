"""Diagnostics on values worked out by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from froc.measuring.diagnostics import (
    linear_cka,
    mia_auc,
    model_utility,
    priv_leak,
)


def test_model_utility_is_a_harmonic_mean() -> None:
    assert model_utility([0.5, 0.25]) == pytest.approx(2 / (2 + 4))
    assert model_utility([0.9, 0.0, 0.9]) == 0.0


def test_mia_auc_counts_ties_half() -> None:
    # pairs (forget, holdout): 1 > 0, 1 = 1, 2 > 0, 2 > 1
    assert mia_auc([1, 2], [0, 1]) == 3.5 / 4
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 50), rng.integers(2, 11, 70)
    truth = roc_auc_score(np.r_[np.ones(50), np.zeros(70)], np.r_[first, second])
    assert mia_auc(first, second) == pytest.approx(truth, abs=1e-12)


def test_priv_leak_is_negative_while_forget_rows_look_familiar() -> None:
    assert priv_leak(0.5) == 0.0
    assert priv_leak(1.0) == -100.0
    assert priv_leak(0.0) == 100.0
    # MUSE's own reference for news: 1 - auc of 0.4772
    assert priv_leak(1 - 0.2386, reference=1 - 0.4772) == pytest.approx(-50.0)


def test_linear_cka_ignores_rotation_size_and_offset() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(x, x) == pytest.approx(1.0)
    assert linear_cka(x, 3.0 * x @ turn + 7.0) == pytest.approx(1.0)
    assert linear_cka(x, rng.normal(size=(200, 9))) < 0.1
    # centred columns: x = (-1, 0, 1), y = (-1, 2, -1) / 3 are orthogonal
    assert linear_cka([[0], [1], [2]], [[0], [1], [0]]) == pytest.approx(0.0)
    assert math.isnan(linear_cka(np.ones((3, 2)), x[:3]))


@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [[0.5]]])
def test_absence_is_no_number(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="none of them missing"):
        model_utility(bad)
    with pytest.raises(ValueError, match="none of them missing"):
        mia_auc([0.5], bad)


def test_no_torch_is_needed() -> None:
    code = "import sys, froc.measuring.diagnostics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

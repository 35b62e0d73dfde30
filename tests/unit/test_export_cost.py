import time

import pytest

from export.cost import CostModel, Curve, fit_cost


def test_the_fitted_curve_predicts_shapes_that_were_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def run(rows: int, tokens: int) -> None:
        clock[0] += 0.001 + 2e-6 * rows * tokens + 1e-8 * rows * tokens**2

    cost = fit_cost(run, 128)
    assert cost.alone(50) == pytest.approx(0.001 + 2e-6 * 50 + 1e-8 * 50**2, rel=0.01)
    assert cost.batch.seconds(8, 40) == pytest.approx(0.001 + 2e-6 * 320 + 1e-8 * 8 * 1600, rel=0.01)


def test_texts_share_a_run_only_where_padding_costs_less_than_starting_anew() -> None:
    cost = CostModel(Curve(0.001, 1e-5, 0.0), Curve(0.001, 1e-5, 0.0))
    assert cost.together_is_sooner([10, 10, 10, 10])
    assert not cost.together_is_sooner([5, 5, 5, 400])


def test_a_prediction_is_never_zero_or_less() -> None:
    assert Curve(-1.0, 0.0, 0.0).seconds(1, 10) > 0

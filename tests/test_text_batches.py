"""Batches: every example once an epoch, as narrow as its bucket allows, whatever the lengths."""

import jax
import numpy as np
import pytest

from imp_rg.data.text.batches import padding_waste, plan_epoch

LENGTH = np.random.default_rng(0).integers(3, 65, 203)
WIDTHS = (16, 32, 64)


def rows_of(batches):
    return np.concatenate([batch.rows[batch.weights > 0] for batch in batches])


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("widths", [WIDTHS, (64,)])
def test_every_example_once(seed, widths):
    key = None if seed is None else jax.random.key(seed)
    batches = plan_epoch(key, LENGTH, batch_size=16, widths=widths)
    assert len(batches) == 13  # of 203 examples, whatever their lengths
    assert sorted(rows_of(batches)) == list(range(203))
    for batch in batches:
        assert batch.rows.shape == batch.weights.shape == (16,)
        assert LENGTH[batch.rows].max() <= batch.width
        assert batch.width in widths
    assert sum(batch.weights.sum() for batch in batches) == 203


def test_only_leftovers_lie_in_wider_batches():
    batches = plan_epoch(jax.random.key(1), LENGTH, batch_size=16, widths=WIDTHS)
    for narrow, wide in ((16, 32), (32, 64)):
        rows = np.concatenate([batch.rows for batch in batches if batch.width >= wide])
        assert (LENGTH[rows] <= narrow).sum() < 16


def test_dropping_the_last():
    batches = plan_epoch(jax.random.key(0), LENGTH, batch_size=16, widths=WIDTHS, keep_last=False)
    assert len(batches) == 12 and len(set(rows_of(batches))) == 12 * 16
    assert all(batch.weights.all() for batch in batches)
    with pytest.raises(ValueError, match="batch_size: must not exceed the 203 examples, got 204"):
        plan_epoch(None, LENGTH, batch_size=204, widths=(64,), keep_last=False)
    (batch,) = plan_epoch(None, LENGTH, batch_size=300, widths=(64,))
    assert batch.weights.sum() == 203


def test_order_depends_on_the_key_alone():
    first, again, other = (
        plan_epoch(jax.random.key(seed), LENGTH, batch_size=16, widths=WIDTHS) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(rows_of(first), rows_of(again))
    assert (rows_of(first) != rows_of(other)).mean() > 0.9
    widths = [batch.width for batch in first]
    assert widths != sorted(widths)  # steps do not go from narrow to wide
    ordered = plan_epoch(None, LENGTH, batch_size=16, widths=WIDTHS)
    assert [batch.width for batch in ordered] == sorted(widths)
    fixed = plan_epoch(None, LENGTH, batch_size=16, widths=(64,))
    np.testing.assert_array_equal(rows_of(fixed), np.arange(203))


def test_waste():
    length = np.array([4, 4, 8, 6])
    fixed = plan_epoch(None, length, batch_size=2, widths=(8,))
    assert padding_waste(length, fixed) == 1 - 22 / 32
    bucketed = plan_epoch(None, length, batch_size=2, widths=(4, 8))
    assert padding_waste(length, bucketed) == 1 - 22 / 24
    filled_up = plan_epoch(None, length, batch_size=3, widths=(8,))
    assert padding_waste(length, filled_up) == 1 - 22 / 48  # what fills up is waste too


def test_unfit_widths():
    for widths in ((), (32, 16), (16, 16)):
        with pytest.raises(ValueError, match="widths: must rise"):
            plan_epoch(None, LENGTH, batch_size=16, widths=widths)
    with pytest.raises(ValueError, match=r"widths: must hold the longest input, 64 tokens, got"):
        plan_epoch(None, LENGTH, batch_size=16, widths=(16, 63))
    with pytest.raises(ValueError, match="batch_size: must be at least 1, got 0"):
        plan_epoch(None, LENGTH, batch_size=0, widths=WIDTHS)

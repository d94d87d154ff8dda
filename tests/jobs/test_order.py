"""Which worker takes which image: every image once, the same batches for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.command import DataError, UsageError
from jobs.order import Order, evaluation, share

_worlds = st.integers(1, 7)


@given(count=st.integers(0, 50), world=_worlds)
def test_shares_are_a_cut_of_the_whole_and_nearly_equal(count: int, world: int) -> None:
    parts = [list(range(count))[share(count, rank, world)] for rank in range(world)]
    assert [image for part in parts for image in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(count=st.integers(10, 60), batch=st.integers(7, 10), world=_worlds, seed=st.integers(0, 9))
def test_a_global_batch_does_not_depend_on_the_number_of_workers(
    count: int, batch: int, world: int, seed: int
) -> None:
    alone = list(Order(count, batch, 0, 1, seed).training(0, 12))
    ranks = [list(Order(count, batch, rank, world, seed).training(0, 12)) for rank in range(world)]
    for step, together in enumerate(alone):
        assert np.array_equal(np.concatenate([rank[step] for rank in ranks]), together)


def test_an_epoch_takes_no_image_twice_and_each_epoch_has_its_own_order() -> None:
    order = Order(20, 5, 0, 1, seed=3)
    steps = list(order.training(0, 8))
    first, second = np.concatenate(steps[:4]), np.concatenate(steps[4:])
    assert sorted(first) == sorted(second) == list(range(20))
    assert not np.array_equal(first, second)
    assert [order.epoch_of(step) for step in (0, 3, 4)] == [0, 0, 1]


def test_a_restart_goes_on_with_the_same_images() -> None:
    order = Order(23, 5, 1, 2, seed=0)
    whole = list(order.training(0, 11))
    resumed = [*order.training(0, 6), *order.training(6, 11)]
    assert all(map(np.array_equal, whole, resumed))


@given(first=st.integers(0, 5), count=st.integers(0, 40), batch=st.integers(1, 9), world=_worlds)
def test_an_evaluation_takes_each_image_once(
    first: int, count: int, batch: int, world: int
) -> None:
    batches = [
        part
        for rank in range(world)
        for part in evaluation(first, first + count, batch, rank, world)
    ]
    assert sorted(np.concatenate([*batches, []])) == list(range(first, first + count))
    assert all(0 < len(part) <= batch for part in batches)


def test_batches_that_cannot_be_are_told() -> None:
    with pytest.raises(UsageError, match="--batch-size 4"):
        Order(100, 3, 0, 4, 0)
    with pytest.raises(DataError, match="9 images do not fill one batch of 10"):
        Order(9, 10, 0, 1, 0)

"""The order of an epoch as sample numbers: any shards, ranks, batch sizes and interruptions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.order import Consumed, EpochOrder

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 0)


def _order(counts: list[int], *, seed: int = 0, window: int = 7, bucket: int = 0) -> EpochOrder:
    total = sum(counts)
    frames = np.random.default_rng(total).integers(30, 300, total)
    return EpochOrder(counts=np.array(counts), frames=frames, seed=seed, window=window, bucket_batches=bucket)


def _rows(
    order: EpochOrder, epoch: int, ranks: int, batch: int, consumed: tuple[Consumed, ...] = ()
) -> list[np.ndarray]:
    return [order.slots(epoch, rank=rank, ranks=ranks, batch_size=batch, consumed=consumed) for rank in range(ranks)]


def _numbers(rows: list[np.ndarray]) -> list[int]:
    return [int(number) for row in rows for number in row.reshape(-1) if number >= 0]


@settings(deadline=None)
@given(counts=COUNTS, ranks=st.integers(1, 5), batch=st.integers(1, 5), window=st.integers(0, 40),
       bucket=st.integers(0, 3), epoch=st.integers(0, 3))  # fmt: skip
def test_every_sample_once_and_equal_steps(
    counts: list[int], ranks: int, batch: int, window: int, bucket: int, epoch: int
) -> None:
    order = _order(counts, window=window, bucket=bucket)
    rows = _rows(order, epoch, ranks, batch)
    assert {row.shape for row in rows} == {(order.steps(ranks, batch), batch)}
    assert sorted(_numbers(rows)) == list(range(sum(counts)))
    shares = [len(_numbers([row])) for row in rows]
    assert max(shares) - min(shares) <= 1


@settings(deadline=None)
@given(counts=COUNTS, data=st.data(), bucket=st.integers(0, 3))
def test_other_ranks_finish_an_interrupted_epoch(counts: list[int], data: st.DataObject, bucket: int) -> None:
    """Every sample occurs once when resumed repeatedly with other ranks and batch sizes."""
    order = _order(counts, bucket=bucket)
    consumed: tuple[Consumed, ...] = ()
    seen: list[int] = []
    for _ in range(4):
        ranks, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
        rows = _rows(order, 1, ranks, batch, consumed)
        steps = data.draw(st.integers(0, len(rows[0]) - 1))
        seen += _numbers([row[:steps] for row in rows])
        consumed = (*consumed, Consumed(ranks, batch, steps))
    seen += _numbers(_rows(order, 1, 1, 3, consumed))
    assert sorted(seen) == list(range(sum(counts)))


def test_order_depends_on_seed_and_epoch() -> None:
    counts = [40, 30, 50]
    first = _rows(_order(counts, seed=1), 0, 2, 4)
    assert all(np.array_equal(a, b) for a, b in zip(first, _rows(_order(counts, seed=1), 0, 2, 4), strict=True))
    assert not np.array_equal(first[0], _rows(_order(counts, seed=1), 1, 2, 4)[0])
    assert not np.array_equal(first[0], _rows(_order(counts, seed=2), 0, 2, 4)[0])
    assert _numbers(_rows(_order(counts, window=0), 3, 1, 4)) == list(range(120))


def test_rank_reads_few_shards_at_a_time() -> None:
    order = _order([100] * 20, window=200)
    for row in _rows(order, 0, 4, 10):
        assert len(set(row.reshape(-1) // 100)) <= 6
        for start in range(0, 500, 200):
            assert len(set(row.reshape(-1)[start : start + 200] // 100)) <= 3


def test_buckets_batch_similar_lengths() -> None:
    plain, bucketed = _order([500, 500], window=1000), _order([500, 500], window=1000, bucket=25)

    def spread(order: EpochOrder) -> float:
        return float(np.mean([np.ptp(order.frames[batch]) for batch in order.slots(0, rank=0, ranks=1, batch_size=20)]))

    assert spread(bucketed) < spread(plain) / 5
    lengths = [bucketed.frames[batch].mean() for batch in bucketed.slots(0, rank=0, ranks=1, batch_size=20)]
    assert (
        abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.5
    )  # batches themselves are not ordered by length
    per_rank = [bucketed.frames[row].mean(1) for row in _rows(bucketed, 0, 2, 20)]
    assert np.abs(per_rank[0] - per_rank[1]).mean() < 15  # ranks process similar lengths at the same step

"""Rows of Ray Data: the work items or outcomes of a task as one pickled column, described by Arrow columns beside it.

Ray knows the size of Arrow columns exactly, where it would estimate that of Python objects, so that its backpressure and dashboard
show what the queues hold; rows can be filtered and counted by their columns without unpickling.
"""

import pickle
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.chain.work_item import WorkItem
from pipeline.execution.engines import Outcome

COMMITTED = "commit"
"""Stage of rows that hold outcomes."""
SCHEMA = pa.schema(
    {
        "ids": pa.list_(pa.string()),
        "kinds": pa.list_(pa.string()),
        "stage": pa.string(),
        "records": pa.int64(),
        "rejections": pa.int64(),
        "payload_bytes": pa.int64(),
        "payload": pa.large_binary(),
    }
)
"""Ids and kinds of the row's sources, the last stage that they have passed (empty: none yet), their records and rejections in
total, and the pickled list of work items, or of outcomes after the commit, with its size."""


def rows_of(groups: Sequence[Sequence[WorkItem]], stage: str = "") -> pa.Table:
    """A row for each group of work items, which have passed `stage`."""
    return pa.Table.from_pylist([_row(group, group, stage) for group in groups], schema=SCHEMA)


def committed_row(work_items: Sequence[WorkItem]) -> pa.Table:
    """One row with the outcomes of committed work items."""
    outcomes = [Outcome.of(work_item) for work_item in work_items]
    return pa.Table.from_pylist([_row(work_items, outcomes, COMMITTED)], schema=SCHEMA)


def payloads(table: pa.Table) -> list[Any]:
    """The work items or outcomes of all rows of a table, in order."""
    return [item for value in table.column("payload") for item in pickle.loads(value.as_buffer())]


def _row(work_items: Sequence[WorkItem], payload: Sequence[Any], stage: str) -> dict[str, Any]:
    content = pickle.dumps(list(payload))
    return {
        "ids": [work_item.source.id for work_item in work_items],
        "kinds": [work_item.source.kind for work_item in work_items],
        "stage": stage,
        "records": sum(len(work_item.records) for work_item in work_items),
        "rejections": sum(len(work_item.rejections) for work_item in work_items),
        "payload_bytes": len(content),
        "payload": content,
    }

"""SQL over a dataset's tables, with DuckDB.

The tables are handed over by Arrow, so the same code reads a disk or a bucket, a query fetches only the columns of the
catalogue that it names, and DuckDB itself needs no access to files or network: it is locked out of both.
"""

import datetime
import decimal
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as arrow_dataset
import pyarrow.parquet as pq

from pipeline.dataset.catalogue import CATALOGUE
from schemas.dataset import DESCRIPTION, TOMBSTONES, read_description
from schemas.errors import HumoError, UsageError
from schemas.ledger import current_rows, read_history
from schemas.storage import Storage

Table: TypeAlias = Any
"""What a view can be: an Arrow table, or an Arrow dataset that is not read yet."""
MAX_CELL = 60
"""Characters of a cell that `print_table` shows."""

_LOCKED = {
    "temp_directory": "",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
"""No files, no network, no extensions, no Python variables as tables; the last one makes it stay so."""
_QUESTIONS = ("SELECT", "EXPLAIN")
"""Kinds of statements, as DuckDB parses them; DESCRIBE, SUMMARIZE, SHOW and VALUES are of the first."""


def query(dataset: str, sql: str) -> pa.Table:
    """The answer to one SQL question over the views `samples`, `ledger` (what stands), `history` (all that was ever decided)
    and, where something was removed, `removed`.

    Raises HumoError where there is no dataset, UsageError for SQL that fails or is no question (SELECT, WITH, DESCRIBE,
    SUMMARIZE, EXPLAIN and the like); its message has DuckDB's own and the tables with their columns.
    """
    with Questions(dataset) as questions:
        return questions.ask(sql)


class Questions:
    """A dataset opened for any number of questions; see `query`."""

    def __init__(self, dataset: str) -> None:
        self.tables = dataset_tables(dataset)
        self._connection = duckdb.connect(":memory:")
        for name, table in self.tables.items():
            self._connection.register(name, table)
        for option, value in _LOCKED.items():
            self._connection.execute(f"SET {option} = '{value}'")

    def __enter__(self) -> "Questions":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, sql: str) -> pa.Table:
        """The answer to one question."""
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1:
                raise UsageError(f"{len(statements)} SQL statements: ask one question at a time")
            kind = statements[0].type.name
            if kind not in _QUESTIONS:
                raise UsageError(f"SQL of kind {kind}: a dataset is only read here; ask with SELECT or DESCRIBE")
            return self._connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"{str(error).strip()}\n\nThere are the tables\n{describe_tables(self.tables)}") from None

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The answer as dictionaries."""
        return self.ask(sql).to_pylist()


def dataset_tables(dataset: str) -> dict[str, Table]:
    """View -> its rows; the catalogue's are unread. A finished commit makes a dataset, even before it is packed."""
    storage = Storage(dataset)
    found = {"samples": storage.list("catalogue", ".parquet")}
    history = read_history(storage)
    if not found["samples"] and not len(history) and not storage.exists(DESCRIPTION):
        raise HumoError(f"{dataset}: no dataset there; give a folder or address that humo ingest has written to")
    if storage.exists(TOMBSTONES):
        found["removed"] = [TOMBSTONES]
    tables: dict[str, Table] = {name: _open(storage, files) for name, files in found.items() if files}
    if "samples" in tables and storage.exists(DESCRIPTION):
        # While it is packed anew, the next version's tables lie beside this one's.
        shards = [shard.path for shard in read_description(storage).shards]
        tables["samples"] = tables["samples"].filter(pc.field("shard").isin(shards))
    # While nothing was packed the columns can still be asked for.
    return {"samples": CATALOGUE.empty_table(), "ledger": current_rows(history), "history": history} | tables


def describe_tables(tables: dict[str, Table]) -> str:
    """One line a table: its name and columns."""
    return "\n".join(f"  {name}({', '.join(table.schema.names)})" for name, table in tables.items())


def _open(storage: Storage, files: Sequence[str]) -> arrow_dataset.Dataset:
    paths = [storage.path(file) for file in files]
    # Files of different times may have different scores: a column that one lacks reads as NULL there.
    schemas = [pq.read_schema(path, filesystem=storage.fs) for path in paths]
    schema = functools.reduce(lambda one, two: pa.unify_schemas([one, two], promote_options="permissive"), schemas)
    return arrow_dataset.dataset(paths, schema=schema.remove_metadata(), format="parquet", filesystem=storage.fs)


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows for JSON: times as ISO text, decimals as numbers, NaN and infinity as null."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_table(table: pa.Table, limit: int = 50) -> None:
    """Show the first rows in the terminal; a table too wide for it stands on its side, a line a column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    rows = [{name: _cell(value) for name, value in row.items()} for row in table.slice(0, limit).to_pylist()]
    names = table.schema.names
    needed = sum(max(min(len(name), 16), *(min(len(row[name]), 24) for row in rows), 0) + 3 for name in names)
    if needed > console.width and rows:
        for number, row in enumerate(rows):
            shown = Table("", f"row {number + 1}", box=None, pad_edge=False)
            for name in names:
                shown.add_row(Text(name, style="bold"), Text(row[name]))
            console.print(shown, "")
    else:
        shown = Table()
        for field in table.schema:
            numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            shown.add_column(Text(field.name), justify="right" if numeric else "left")
        for row in rows:
            shown.add_row(*(Text(value) for value in row.values()))
        console.print(shown)
    if table.num_rows > limit:
        console.print(f"{limit} of {table.num_rows} rows; all of them with --json, or fewer with a LIMIT of your own")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"

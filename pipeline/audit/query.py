"""SQL over a dataset's tables, with DuckDB.

The tables are passed as Arrow data, so the same code reads a disk or a bucket, a query fetches only the catalogue columns
that it names, and DuckDB needs no access to files or network: both are disabled.
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
"""Content of a view: an Arrow table, or an Arrow dataset that is read lazily."""
MAX_CELL = 60
"""Maximum characters of a cell in `print_table`."""

_LOCKED = {
    "temp_directory": "",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
"""No files, network, extensions or Python variables as tables; the last option prevents changing them."""
_READ_ONLY = ("SELECT", "EXPLAIN")
"""Allowed statement types of DuckDB's parser; DESCRIBE, SUMMARIZE, SHOW and VALUES have type SELECT."""


def query(dataset: str, sql: str) -> pa.Table:
    """Result of one SQL query over the views `samples`, `ledger` (current decisions), `history` (all decisions) and, if anything
    was removed, `removed`.

    Raises HumoError if there is no dataset, UsageError for SQL that fails or does not only read (SELECT, WITH, DESCRIBE,
    SUMMARIZE, EXPLAIN and the like are allowed); its message contains DuckDB's and the tables with their columns.
    """
    with QuerySession(dataset) as session:
        return session.execute(sql)


class QuerySession:
    """A dataset opened for any number of queries; see `query`."""

    def __init__(self, dataset: str) -> None:
        self.tables = dataset_tables(dataset)
        self._connection = duckdb.connect(":memory:")
        for name, table in self.tables.items():
            self._connection.register(name, table)
        for option, value in _LOCKED.items():
            self._connection.execute(f"SET {option} = '{value}'")

    def __enter__(self) -> "QuerySession":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, sql: str) -> pa.Table:
        """Result of one query."""
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1:
                raise UsageError(f"{len(statements)} SQL statements; give exactly one")
            kind = statements[0].type.name
            if kind not in _READ_ONLY:
                raise UsageError(f"SQL statement {kind}: queries are read-only; use SELECT or DESCRIBE")
            return self._connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"{str(error).strip()}\n\nTables:\n{describe_tables(self.tables)}") from None

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Result as dictionaries."""
        return self.execute(sql).to_pylist()


def dataset_tables(dataset: str) -> dict[str, Table]:
    """View -> its table; the catalogue is read lazily. One commit is enough for a dataset, even before packing."""
    storage = Storage(dataset)
    files = {"samples": storage.list("catalogue", ".parquet")}
    history = read_history(storage)
    if not files["samples"] and not len(history) and not storage.exists(DESCRIPTION):
        raise HumoError(f"{dataset}: no dataset there; give a folder or address that humo ingest has written to")
    if storage.exists(TOMBSTONES):
        files["removed"] = [TOMBSTONES]
    tables: dict[str, Table] = {
        name: _open(storage, paths, CATALOGUE if name == "samples" else pa.schema([]))
        for name, paths in files.items()
        if paths
    }
    if "samples" in tables and storage.exists(DESCRIPTION):
        # During repacking the tables of the next version exist beside the current ones.
        shards = [shard.path for shard in read_description(storage).shards]
        tables["samples"] = tables["samples"].filter(pc.field("shard").isin(shards))
    # Before the first packing the columns can already be queried.
    return {"samples": CATALOGUE.empty_table(), "ledger": current_rows(history), "history": history} | tables


def describe_tables(tables: dict[str, Table]) -> str:
    """One line per table: its name and columns."""
    return "\n".join(f"  {name}({', '.join(table.schema.names)})" for name, table in tables.items())


def _open(storage: Storage, files: Sequence[str], known: pa.Schema) -> arrow_dataset.Dataset:
    paths = [storage.path(file) for file in files]
    # Files may have different score columns, and those of an earlier version lack some: such a column is NULL there.
    schemas = [*(pq.read_schema(path, filesystem=storage.fs) for path in paths), known]
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
    """Print the first rows; a table wider than the terminal is transposed, with one line per column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    rows = [{name: _cell(value) for name, value in row.items()} for row in table.slice(0, limit).to_pylist()]
    names = table.schema.names
    width = sum(max(min(len(name), 16), *(min(len(row[name]), 24) for row in rows), 0) + 3 for name in names)
    if width > console.width and rows:
        for number, row in enumerate(rows):
            grid = Table("", f"row {number + 1}", box=None, pad_edge=False)
            for name in names:
                grid.add_row(Text(name, style="bold"), Text(row[name]))
            console.print(grid, "")
    else:
        grid = Table()
        for field in table.schema:
            numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            grid.add_column(Text(field.name), justify="right" if numeric else "left")
        for row in rows:
            grid.add_row(*(Text(value) for value in row.values()))
        console.print(grid)
    if table.num_rows > limit:
        console.print(f"{limit} of {table.num_rows} rows; use --json for all rows, or LIMIT for fewer")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"

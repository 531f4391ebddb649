"""Parquet files with a checksum for every page, so that a changed bit is an error and not another value."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import HumoError

MAX_TABLE_BYTES = 1 << 31
"""Maximum uncompressed size of one file that is read; the tables of a commit, a shard or a merged ledger are far smaller."""


def read_parquet(content: bytes, name: str, schema: pa.Schema | None = None) -> pa.Table:
    """The table of a Parquet file; raises HumoError if it is damaged, or claims more than MAX_TABLE_BYTES."""
    try:
        metadata = pq.read_metadata(io.BytesIO(content))
        claimed = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        if claimed > MAX_TABLE_BYTES:
            raise ValueError(f"it claims {claimed} bytes, more than {MAX_TABLE_BYTES}")
        return pq.read_table(io.BytesIO(content), schema=schema, page_checksum_verification=True)
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HumoError(f"{name}: not a readable table ({reason}); run humo pack, or restore it from a copy") from None


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file; the same table gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()

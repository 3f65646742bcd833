"""Runs as a process of its own: reads one Parquet file completely under limits, prints its columns and row count."""

import json
import resource
import sys

MEMORY_BYTES = 4 << 30
CPU_SECONDS = 60


def main(path: str) -> None:
    """Decode every row group, so that a damaged page is found now and not in the middle of a job."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import pyarrow.parquet  # after the limits: they hold for the decoder too

    with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
        rows = sum(batch.num_rows for batch in file.iter_batches(batch_size=8192, use_threads=False))
        answer = {"columns": list(file.schema_arrow.names), "rows": rows}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])

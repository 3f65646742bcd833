"""Datasets: JSONL, CSV or Parquet."""

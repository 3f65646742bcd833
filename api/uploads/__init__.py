"""Resumable uploads of large files."""

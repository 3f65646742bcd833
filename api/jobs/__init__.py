"""Compression jobs."""

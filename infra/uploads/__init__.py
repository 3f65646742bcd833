"""Verification of what users upload, in plain Python, before any library opens a file."""

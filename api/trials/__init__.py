"""Candidates of a job."""

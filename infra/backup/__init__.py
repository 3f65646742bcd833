"""Copies of an installation: the database and every blob that it needs, verified."""

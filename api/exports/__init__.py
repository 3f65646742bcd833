"""Downloadable forms of a compressed model."""

"""Registered devices."""

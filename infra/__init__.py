"""Foundations that every other package may use: settings, errors, database, artifact store, queue, embedded servers."""

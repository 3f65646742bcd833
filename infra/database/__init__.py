"""Tables, engines, sessions and migrations. SQLite and PostgreSQL, the same code."""

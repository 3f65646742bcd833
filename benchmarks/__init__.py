"""The experiments behind every number in the README: each a command that prints its table."""

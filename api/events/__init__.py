"""Live progress over server-sent events."""

"""Heavy and risky work in a process of its own, which may die without harm."""

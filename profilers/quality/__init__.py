"""Quality of a deployed artifact: examples, splits, tokens, and statistics paired with the dense model."""

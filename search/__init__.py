"""What to try next and what is best: spaces, strategies, coordinator, Pareto front, goals."""

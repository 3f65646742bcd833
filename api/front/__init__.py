"""The Pareto front of a job."""

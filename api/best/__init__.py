"""The best model of a job."""

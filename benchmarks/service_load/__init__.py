"""The service under load: clients, the coordinator, lists, and what a job spends beside its work."""

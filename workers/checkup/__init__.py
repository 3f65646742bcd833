"""Looks at a host of the service and names what will not work, before a job finds out; ``paretune doctor`` shows it."""

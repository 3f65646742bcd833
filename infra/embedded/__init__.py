"""The whole service on one machine, with nothing to install: what ``paretune up`` starts."""

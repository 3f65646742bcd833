"""The command line: ``paretune --help``."""

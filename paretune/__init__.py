"""The client: SDK, command line, and the loader for compressed torch artifacts."""

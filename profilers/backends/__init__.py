"""One file for each runtime. Import them through :mod:`profilers.registry`."""

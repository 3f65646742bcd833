"""Models: folders of files, verified."""

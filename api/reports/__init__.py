"""Reports of jobs and of single models as pages and pictures."""

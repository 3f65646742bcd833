"""HTTP only: the application, one folder per resource."""

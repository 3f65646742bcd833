"""Making a compressed model better without labels: its own outputs against the dense model's, in closed form."""

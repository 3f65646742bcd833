"""How good a deployed artifact is: read examples, split, encode, run, compare with the dense model."""

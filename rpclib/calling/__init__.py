"""The side of the caller."""

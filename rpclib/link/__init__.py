"""One live connection, and what outlives it."""

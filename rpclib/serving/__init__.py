"""The side of the server."""

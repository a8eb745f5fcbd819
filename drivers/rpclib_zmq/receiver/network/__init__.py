"""Other machines: the receivers there, and the sockets between receivers."""

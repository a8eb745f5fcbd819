"""One session of a program with the receiver of its machine."""

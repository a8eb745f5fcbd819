"""The receiver daemon, ``rpclib-zmq-receiver``."""

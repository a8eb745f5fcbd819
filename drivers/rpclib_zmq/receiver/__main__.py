"""``python -m rpclib_zmq.receiver``: how a session starts a receiver, whatever is on the PATH."""

import sys

from rpclib_zmq.receiver.cli import main

if __name__ == "__main__":
    sys.exit(main())

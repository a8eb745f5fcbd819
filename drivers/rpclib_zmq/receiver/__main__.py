"""``python -m rpclib_zmq.receiver``: starts a receiver independently of the PATH."""

import sys

from rpclib_zmq.receiver.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""For the tests of applications: ``pytest_plugins = ["rpclib.testing"]`` in a conftest.py. Needs pytest."""

from rpclib.testing.fixtures import rpc as rpc
from rpclib.testing.fixtures import rpclib_url as rpclib_url

"""The in-memory driver: ``fake://`` or ``fake://name``. It specifies the driver interface in code.

The driver transports the same bytes as any other driver, within one process, across loops and threads, without
sleeping or polling. It is made for the tests of applications.
"""

from rpclib_fake.driver import FakeDriver

__all__ = ["FakeDriver"]

"""The in-memory driver: ``fake://`` or ``fake://name``. The specification of the driver interface in code.

It carries the same bytes as any other driver, within one process, across loops and threads, without sleeping or
polling. Applications test with it.
"""

from rpclib_fake.driver import FakeDriver

__all__ = ["FakeDriver"]

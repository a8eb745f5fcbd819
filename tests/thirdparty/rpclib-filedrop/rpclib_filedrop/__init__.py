"""An rpclib driver that moves messages through files: ``filedrop:///var/spool/rpc``.

All processes that open the same directory reach each other. Each address has a folder in it, which holds

* ``TOKEN.seat`` for each subscriber, alive as long as its process holds the lock on that file;
* ``SENT-NUMBER-SENDER-EXPIRES.FOR`` for each message: times in nanoseconds of the machine's monotonic clock, FOR a
  seat's token, or ``any`` where the subscribers share what arrives.

Who reads or changes a folder holds its lock, for microseconds; a message appears whole, by a rename. Nothing is
held between the folder and `take`, so a process that dies loses only what it had taken.
"""

from rpclib_filedrop.driver import FiledropDriver

__all__ = ["FiledropDriver"]

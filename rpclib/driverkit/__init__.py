"""What every driver needs beside its backend, for drivers in this tree and elsewhere.

Each part stands for itself; use those that fit. All of it runs on the loop of the session.
"""

from rpclib.driverkit.clock import clock_of as clock_of
from rpclib.driverkit.ending import Ending as Ending
from rpclib.driverkit.naming import address_name as address_name
from rpclib.driverkit.receiving import Held as Held
from rpclib.driverkit.receiving import ReceiveBuffer as ReceiveBuffer
from rpclib.driverkit.sending import SendBuffer as SendBuffer

__all__ = ["Ending", "Held", "ReceiveBuffer", "SendBuffer", "address_name", "clock_of"]

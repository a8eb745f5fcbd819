"""What the fault tests share."""

from tests.drivers.amqp.conftest import pytest_pyfunc_call as pytest_pyfunc_call
from tests.rabbit import amqp_url as amqp_url
from tests.rabbit import exchange as exchange
from tests.rabbit import rabbit as rabbit

"""The brokers that the tests of the AMQP driver use."""

from tests.rabbit import amqp_url as amqp_url
from tests.rabbit import exchange as exchange
from tests.rabbit import rabbit as rabbit

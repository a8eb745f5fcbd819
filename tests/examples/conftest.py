"""What the tests of the examples share."""

from tests.rabbit import amqp_url as amqp_url
from tests.rabbit import exchange as exchange
from tests.rabbit import rabbit as rabbit

"""What becomes of the requests that a stopping server had not begun."""

from __future__ import annotations

import logging

from rpclib.address import Address, Kind, Target
from rpclib.driver import Delivery
from rpclib.errors import BadEnvelope, NoServer, SerializationError, TransportError
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from rpclib.serving.replies import Replies
from rpclib.serving.run import may_have_run
from rpclib.wire.envelope import decode
from rpclib.wire.request import Request, encode_again

log = logging.getLogger("rpclib")


class Handover:
    """Passes requests on to the topic's other servers, or answers why they did not run."""

    def __init__(self, link: Link, replies: Replies, target: Target) -> None:
        self._link = link
        self._replies = replies
        self._target = target

    def hand_over(self, address: Address, delivery: Delivery) -> None:
        """Settle one delivery that came to ``address``. A fanout has other receivers and is dropped."""
        try:
            request = decode(delivery.body)
            if not isinstance(request, Request):
                raise BadEnvelope("not a request")
        except BadEnvelope as error:
            self._link.bad_envelope(error)
            return
        if address.kind is Kind.ALL:
            return
        if delivery.redelivered:  # a new message would not say so
            self._link.counters.redelivered += 1
            if request.wants_answer:
                self._replies.refuse(request, may_have_run(request))
        elif address.key and request.wants_answer:
            text = f"server {self._target} is stopping and did not run {request.method}"
            self._replies.refuse(request, NoServer(text, maybe_executed=False))
        else:
            self._pass_on(Sender(self._link, address), request, delivery.waited)

    def _pass_on(self, sender: Sender, request: Request, waited: float) -> None:
        """Send a request to the address again, as a new message."""
        left = None if request.budget is None else request.budget - waited
        if left is not None and left <= 0:
            self._link.counters.expired += 1
            return
        try:
            body = encode_again(request, left, request.reply_to)
            sent = sender.push(body, left, request.id if request.wants_answer else b"")
        except (TransportError, SerializationError) as error:  # decoding is more tolerant than encoding
            log.warning("could not pass on %s: %s", request.method, error)
        else:
            if not sent:
                log.warning("could not pass on %s: there is no session", request.method)

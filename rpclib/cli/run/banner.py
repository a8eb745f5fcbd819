"""What ``rpclib run`` says when it starts."""

from __future__ import annotations

import inspect

import rpclib
from rpclib.cli import output
from rpclib.cli.drivers import promises
from rpclib.serving.endpoints import Method


def banner(rpc: rpclib.Transport, server: rpclib.Server) -> None:
    """Say on stderr what is served where, and with which guarantees."""
    err = output.console(stderr=True)
    err.print(f"serving {server.target}", style="bold", end=" ")
    err.print(f"on {rpc.url}, exchange {server.target.exchange}", soft_wrap=True)
    for namespace, version, method in server.endpoints.methods():
        place = f"{namespace or ''} {version}".strip()
        err.print(f"  {method.name}{_signature(method)}", style="cyan", end="", soft_wrap=True)
        err.print(f"   {place}{', idempotent' if method.idempotent else ''}", style="dim", soft_wrap=True)
    err.print(f"the {rpc.url.scheme} driver promises: each request runs at most once, and", style="bold")
    for kept, words in promises(rpc.capabilities):
        err.print(f"  {'+' if kept else '-'} {words}", style="green" if kept else "yellow")
    err.print(
        f"ready: up to {server.workers} requests at a time; SIGTERM or Ctrl-C stops within {server.grace:g} s",
        style="bold",
        soft_wrap=True,
    )


class _Bare:
    """An annotation that was written as text, shown without quotes."""

    def __init__(self, text: object) -> None:
        self._text = text

    def __repr__(self) -> str:
        return str(self._text)


def _signature(method: Method) -> inspect.Signature:
    def bare(annotation: object) -> object:
        return _Bare(annotation) if isinstance(annotation, str) else annotation

    signature = method.signature
    parameters = [item.replace(annotation=bare(item.annotation)) for item in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=bare(signature.return_annotation))

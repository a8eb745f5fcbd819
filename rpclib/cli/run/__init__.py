"""``rpclib run``: serving in one process or several."""

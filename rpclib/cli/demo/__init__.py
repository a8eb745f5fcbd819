"""``rpclib demo``: services that call each other."""

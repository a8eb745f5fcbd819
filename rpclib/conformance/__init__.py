"""The conformance suite: one test for each line of docs/reference/guarantees.md, for any driver.

    pytest -p rpclib.conformance.plugin --pyargs rpclib.conformance --rpclib-url fake://

``--rpclib-url`` may be repeated. Guarantees that need a capability the driver does not declare are skipped, and
the table at the end of the run says so.
"""

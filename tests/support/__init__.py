"""What tests share. Nothing here is a test.

asking      requests put straight before a server, and the answers it sends
calling     a service, a driver that reopens at once, and replies, for tests of callers
envelopes   requests as bytes, with every field at hand
links       links that were never opened
load        calls under load, and a ledger that tells whether every promise was kept
portals     things to run on the loop of a portal, and to hold it up
proxy       a TCP proxy that cuts, stalls and refuses
rabbit      RabbitMQ brokers of the test run's own
scripted    a driver whose every step the test decides; `turns`
values      strategies for values that travel, and for those that nearly do
"""

"""The conformance suite over sockets: servers and programs to judge, reports, and the command line.

The kits and the cases are in `gearman_proto.testing.conformance`.
"""

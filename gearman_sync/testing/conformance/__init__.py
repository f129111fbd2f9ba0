"""The conformance suite over sockets: judged servers and programs, reports, and the command.

The kits and the cases are in `gearman_proto.testing.conformance`.
"""

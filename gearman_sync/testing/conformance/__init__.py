"""A conformance suite: judges servers, workers and clients of Gearman from their bytes.

What is judged is talked to over sockets, by the other side, which does as the case says: a server
gets clients and workers (`ServerKit`), a worker or client is a program that is started with the
address of a server (`WorkerKit`, `ClientKit`). A `Case` is one short function; `Judge` runs them.
"""

"""A conformance suite: kits and cases that judge implementations of Gearman by their bytes.

The suite plays the other side. A server gets clients and workers (`ServerKit`); a worker or client
gets a server (`WorkerKit`, `ClientKit`). A `Case` is one short function, and `Judge` runs it.
Nothing here does I/O: a kit gets a place, which is at the other end of sockets, or an engine in
memory.
"""

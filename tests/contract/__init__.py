"""One contract for the public surface, kept by both adapters with gearmand and with JobServer."""

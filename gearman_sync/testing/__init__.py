"""Tools to test what speaks Gearman over real sockets, and applications."""

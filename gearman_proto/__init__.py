"""The Gearman protocol without I/O."""

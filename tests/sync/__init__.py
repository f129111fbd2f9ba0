"""The blocking client against gearmand, and against servers that do what gearmand never does."""

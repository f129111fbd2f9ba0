"""Tools to test what speaks Gearman: properties, a simulated network, and strategies (in `strategies`)."""

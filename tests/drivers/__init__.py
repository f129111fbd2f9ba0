"""Tests of the drivers of both adapters and of the examples, by the DriverTests of the library."""

"""Tests of the engines, without sockets and clocks."""

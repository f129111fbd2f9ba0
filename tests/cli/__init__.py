"""Tests of gearmanctl from a user's point of view, with JobServer and with gearmand."""

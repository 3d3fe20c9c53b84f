"""Tests with concurrent and killed processes, and with a faulty network."""

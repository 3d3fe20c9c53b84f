"""Registered model versions: aliases and their history, digests and signatures."""

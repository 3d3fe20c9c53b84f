"""Register model versions, move their aliases, and check their digests and signatures."""

"""Every claim about speed and quality, measured: `python -m benchmarks.<name>` from the root of the project."""

"""Measure speed and quality. Run a benchmark with `python -m benchmarks.<name>`."""

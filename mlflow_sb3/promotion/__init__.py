"""Promotion of model versions: the gate, its record, promote, roll back and replay."""

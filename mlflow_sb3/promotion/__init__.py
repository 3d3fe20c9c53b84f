"""Promote model versions: run the gate, record the verdict, roll back and replay."""

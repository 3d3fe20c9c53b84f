"""Gymnasium environments: described as JSON, made again, and played in."""

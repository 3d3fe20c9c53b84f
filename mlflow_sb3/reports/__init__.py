"""Figures and videos of episodes."""

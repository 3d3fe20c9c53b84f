"""Figures, videos and reports of episodes."""

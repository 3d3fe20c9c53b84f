"""Stable-Baselines3 algorithms by name, their hyperparameters as JSON, and rl_zoo3's presets."""

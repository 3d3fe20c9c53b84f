"""Build Stable-Baselines3 algorithms from JSON hyperparameters and rl_zoo3's presets."""

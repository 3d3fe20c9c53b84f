"""Learn, evaluate checkpoints, keep the best, take snapshots, resume and reproduce."""

"""What happens when processes come together, or are killed."""

"""Training: the loop, its checkpoints and what they hold."""

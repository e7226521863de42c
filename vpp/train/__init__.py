"""Training: settings, the loop, checkpoints, how a model is spread over GPUs."""

"""Sampling and loading of clips for training: which clip is drawn when, and how its bytes come from the shards."""

"""Episodes of a dataset in formats of others."""

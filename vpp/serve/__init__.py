"""A policy over the network: a server that batches what several robots ask, and a client without model libraries."""

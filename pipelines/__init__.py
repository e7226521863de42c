"""From videos to shards and a manifest. Every step is a plain function; only `preprocess.py` knows Ray."""

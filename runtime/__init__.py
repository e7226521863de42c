"""How a job runs: its settings, logs and exit code, and what it asks and tells the cluster. Imports `schemas` alone."""

"""The report of a run: one static page of what its data, trainings and evaluations have left."""

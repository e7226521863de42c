"""Models, training, acting. Meets `pipelines` only in files."""

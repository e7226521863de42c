"""What rows, files and observations look like, and the errors. Imports nothing else of this project."""

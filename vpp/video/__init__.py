"""The video model and its frozen companions: CLIP's text encoder and the SVD VAE."""

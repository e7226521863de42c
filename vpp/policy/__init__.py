"""The diffusion policy on predictive features: Video Former, action denoiser, and how both are trained and sampled."""

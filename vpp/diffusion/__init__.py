"""Diffusion in the notation of Karras et al. (2022): preconditioning, noise levels, samplers."""

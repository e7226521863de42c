"""Simulators: MetaWorld and the demonstrations of its scripted experts, CALVIN and its chains; evaluation in both."""

"""Simulators: MetaWorld's environments and the demonstrations of its scripted experts."""

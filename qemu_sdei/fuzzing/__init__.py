"""Malformed hardware errors, shown to a guest's kernel until it breaks."""

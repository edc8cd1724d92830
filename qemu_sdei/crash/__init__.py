"""Crashes of a kernel whose CPUs hang, on firmware that does right or wrong: what the capture kernel has of them."""

"""Subsets on the CPU."""

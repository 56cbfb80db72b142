"""Chains on the CPU, compiled."""

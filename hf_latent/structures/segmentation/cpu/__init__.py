"""Segmentations on the CPU, compiled."""

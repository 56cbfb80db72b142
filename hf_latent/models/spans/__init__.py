"""Taggers of spans, as they are."""

"""Segmentations: their definition, and the algorithms on them; with or without scores of transitions."""

from hf_latent.structures.segmentation.segment_scores import BestSegments, SegmentScores
from hf_latent.structures.segmentation.segmentation import Segmentation

__all__ = ["BestSegments", "SegmentScores", "Segmentation"]

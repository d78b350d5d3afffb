"""Distilling: a trained run teaches a small network of the whole, the edge student."""

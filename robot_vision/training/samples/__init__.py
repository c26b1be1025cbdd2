"""Samples as tensors, augmented and chosen for batches."""

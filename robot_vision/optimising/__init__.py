"""Programs of a bundle at lower precisions, and what they are proven to cost."""

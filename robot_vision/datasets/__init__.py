"""Samples with an image, a label and a pose, one data set format a file."""

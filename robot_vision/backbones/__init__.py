"""Backbones: architectures, feature taps, pretrained weights."""

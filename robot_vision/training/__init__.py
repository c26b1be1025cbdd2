"""Losses, mining and the training loop that turn samples into a bundle."""

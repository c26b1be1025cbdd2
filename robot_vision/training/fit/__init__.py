"""Fitting a network: optimiser, loop, checkpoints, ensembles."""

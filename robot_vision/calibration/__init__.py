"""Calibration of a finished bundle: its numbers become true on data that was not trained on."""

"""Numbers with intervals: weighted statistics, bootstrap over blocks of frames, calibration."""

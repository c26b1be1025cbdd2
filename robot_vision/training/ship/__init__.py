"""From the best weights to a bundle: calibration, judgement, quantisation, report."""

"""Files on disk: arrays, plain YAML, order of names, cache folders, addresses."""

"""One head a file: its layers, its outputs, and the paper that it follows."""

"""The filter node: classes and poses over time."""

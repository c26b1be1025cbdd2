"""From predictions and truth to numbers."""

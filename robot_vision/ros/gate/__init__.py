"""The gate node: lets commands through, slows or stops them."""

"""What heads and the rest of the package agree on: protocols, tables, and a registry of names."""

"""The demo: a rendered home, a robot that drives through it, and what its nodes made of it."""

"""Speed of every stage and of the running node: `make bench`. See docs/benchmarks.md for the results."""

"""What all nodes are made of: parameters, transitions, statistics, guards on messages."""

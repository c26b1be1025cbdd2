"""The perception node: cameras in, the answers of the network out."""

"""A descriptor by which a place is recognised: NetVLAD or GeM."""

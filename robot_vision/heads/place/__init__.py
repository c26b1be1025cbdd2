"""A descriptor by which a place is recognised: NetVLAD, GeM, SALAD, BoQ, MixVPR or CosPlace."""

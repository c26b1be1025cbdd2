"""How to steer, and whether something is in the way (Loquercio et al. 2018)."""

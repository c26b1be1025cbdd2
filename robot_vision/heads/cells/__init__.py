"""Where in the building, as a distribution over adaptive cells (Weyand et al. 2016)."""

"""How far away what each pixel shows is, and how sure that is (Eigen et al. 2014)."""

"""How it is searched: the paper's equations, and what stands beside them."""

"""Search: one file a method, found by its name (docs/adding_a_method.md).

interface.py   what a method is, and what the loop lends it
passes.py      forward-backward passes; relax.py: Gumbel noise; shown.py: what is told of logits
equations.py   the paper's, by number; daas.py: Algorithm 1; ours.py, estimators.py, per_image.py
darts.py, gdas.py   the other methods
"""

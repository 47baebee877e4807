"""What was found, loaded again: architectures, policies and trained networks."""

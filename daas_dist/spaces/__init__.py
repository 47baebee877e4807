"""What is searched: cells and their paths, policies, and the image operations they apply."""

"""The training of networks: its loop, its engines, and the comparison that it makes."""

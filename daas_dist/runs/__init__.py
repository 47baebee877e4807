"""One run directory: its lock, its log, its checkpoints, and how it stops."""

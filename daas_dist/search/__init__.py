"""The search: its steps, its state, its loop and what it writes down."""

"""The configuration: how it is composed, its types, its rules, and where each value is from."""

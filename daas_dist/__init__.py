"""DAAS: a network's architecture and its augmentation policy, searched together."""

from daas_dist.result import load

__all__ = ["load"]

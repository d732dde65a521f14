"""Backgate: a FUSE gateway between backup tools and object stores."""

__version__ = "0.1.0"

"""The version of froc."""

__version__ = "0.1.0"

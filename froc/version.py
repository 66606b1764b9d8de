"""The version of froc."""

__version__ = "0.2.0"

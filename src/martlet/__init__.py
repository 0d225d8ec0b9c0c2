"""Martlet: the serverless cloud you own. User code imports its names from here; they all live in `martlet.sdk`."""

__version__ = "0.1.0"

"""The version of the package, in a file that packaging can read without importing anything."""

__version__ = "0.2.0"

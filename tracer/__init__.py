"""From a pid to a report."""

#: pyproject.toml reads it from here.
VERSION = "0.1.0"

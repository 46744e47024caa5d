"""Feeds damaged and hostile bytes to the symbolizer's parsers, guided by which code they reach."""

"""Gives the reports of a running trace to others over HTTP, from processes of their own that have no rights."""

"""From a pid to a report."""

"""The full-screen view of a trace. It knows reports and the screen, and nothing that traces."""

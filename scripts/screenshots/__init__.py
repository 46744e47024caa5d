"""Makes the README's pictures (scripts/make_screenshots)."""

"""4. For people and programs: one writer per format."""

"""3. What the arrays mean."""

"""Pages in Debian's Chromium: what is drawn, what keys and clicks do, and pictures of it."""

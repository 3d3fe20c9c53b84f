"""A tracking server for a team: one to try on this machine, and one in containers to keep."""

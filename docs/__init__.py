"""Documentation of the project, and the script that writes its parameter tables."""

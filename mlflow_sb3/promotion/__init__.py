"""The statistical gate between challenger and champion, its record, promotion and rollback."""

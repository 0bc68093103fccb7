"""What the leader does alone: resolve, keep, release, write statuses and Events."""

"""What each command does, from files on disk to files on disk."""

"""restic repositories, read without restic."""

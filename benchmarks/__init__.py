"""Backgate against `rclone mount`, `s3fs` and `restic mount`, on one server and one bucket."""

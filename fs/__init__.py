"""Trees: what a store, a backup or an image shows as directories and files; knows no SDK."""

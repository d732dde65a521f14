"""What packages that add a provider test it with; imported by pytest alone."""

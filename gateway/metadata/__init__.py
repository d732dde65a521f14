"""The metadata cache: what is known of a repository's objects, so that none is listed twice."""

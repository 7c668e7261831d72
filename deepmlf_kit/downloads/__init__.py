"""Models that are fetched once: the cache folder they lie in, and checked downloads into it."""

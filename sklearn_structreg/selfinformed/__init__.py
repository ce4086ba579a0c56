"""Self-informed structure and its partitioner: which classes are confused."""

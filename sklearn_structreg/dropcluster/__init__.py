"""DropCluster and its analysis pieces: which pixels move together."""

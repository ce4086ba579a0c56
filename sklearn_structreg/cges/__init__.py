"""Combined group and exclusive sparsity (CGES): which weights are needed."""

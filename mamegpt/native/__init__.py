"""C++ for the parts of training that PyTorch computes slowly on a CPU; compiled when first needed."""

"""The models in PyTorch: tokenizer and latent mapping model, the two joined, the edge student, and comparators."""

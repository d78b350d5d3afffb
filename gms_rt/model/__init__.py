"""The models in PyTorch: frozen tokenizer and latent mapping model, the two joined, and the edge student."""

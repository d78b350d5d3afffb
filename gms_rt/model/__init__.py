"""The model in PyTorch: frozen tokenizer, latent mapping model, and the one place that joins them."""

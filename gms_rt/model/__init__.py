"""The generative segmentation model in PyTorch: frozen tokenizer, latent mapping model, and the two joined."""

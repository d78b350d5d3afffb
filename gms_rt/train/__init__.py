"""Training: losses, latents and loops."""

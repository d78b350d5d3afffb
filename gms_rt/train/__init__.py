"""Training: recipes, cached latents, and a loop that can be stopped and resumed."""

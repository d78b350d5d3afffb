"""The bundled model: phantoms it was trained on, seeds, samples to segment."""

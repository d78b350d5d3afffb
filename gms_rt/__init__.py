"""gms-rt: Generative Medical Segmentation on real devices."""

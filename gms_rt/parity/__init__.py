"""The certificate: do an engine's masks, on this device, equal those of the FP32 reference?"""

"""Quantization schemes and calibration. Empty until it lands."""

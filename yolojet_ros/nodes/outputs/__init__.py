"""What the detector publishes: an output a file, listed in outputs.py."""

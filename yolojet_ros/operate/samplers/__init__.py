"""Readers of what a machine says of itself: heat, power, clocks, load, memory."""

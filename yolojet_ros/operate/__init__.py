"""Operation on a robot: what is wrong, how it runs, which model it runs, and the way back."""

"""Images through all the steps: what all cameras share, and what each has for itself."""

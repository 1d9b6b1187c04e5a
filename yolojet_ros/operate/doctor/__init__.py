"""Find what is wrong with a machine: checks that run where nothing is installed at all."""

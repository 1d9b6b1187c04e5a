"""What `yolojet profile` measured: as text, as a page with charts, against another."""

"""What the steps cost."""

"""What makes cases fail."""

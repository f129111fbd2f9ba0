"""The conformance suite is tried on what is right, what is wrong, and what others have made."""

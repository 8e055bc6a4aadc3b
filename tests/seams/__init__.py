"""Whether the names that are patched exist in every published release, read from the wheels without importing them."""

"""A file from an address to the disk: checked addresses, resume, ranges, hash, lock, header."""

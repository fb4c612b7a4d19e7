"""Everything that lies between files on disk and batches of samples."""

"""Models from a hub: what a reference names, which files are wanted, downloads, new versions, the lock file."""

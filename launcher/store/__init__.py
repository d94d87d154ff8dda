"""Files of this machine: the manifest, the runs."""

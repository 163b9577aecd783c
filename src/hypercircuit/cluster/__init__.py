"""What a run needs to know of the machine and the cluster that it runs on."""

"""The machine and the cluster that a run is on."""

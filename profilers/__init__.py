"""Artifact + device + workload -> measurement with uncertainty; also the quality of a deployed artifact."""

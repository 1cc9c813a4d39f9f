"""HTTP beside gRPC, for platforms and people that speak nothing else: probes and metrics."""

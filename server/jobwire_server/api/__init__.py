"""The gRPC side: servicers, the boundary around every call, and the only code that knows protobuf."""

"""The server: exported models over the Open Inference Protocol, by HTTP and gRPC. No torch."""

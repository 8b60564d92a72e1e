"""The server: exported models over the Open Inference Protocol, by HTTP and gRPC. No torch."""

import os

# grpc's own lines on stderr are no JSON; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

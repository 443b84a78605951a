"""Client of Conclave, a service for mixture-of-experts language models.

    from conclave import Client

    with Client("127.0.0.1:50051") as client:
        for chunk in client.generate("Once upon a time", max_tokens=40):
            print(chunk.text, end="")
"""
from .client import Client, Prompt
from .v1 import admin_pb2, inference_pb2

__all__ = ["Client", "Prompt", "admin_pb2", "inference_pb2"]

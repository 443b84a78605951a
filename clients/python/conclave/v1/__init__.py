"""The messages of the public API: inference_pb2 and admin_pb2, made from proto/conclave/v1/*.proto."""

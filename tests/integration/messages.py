"""The API's messages, from a set of descriptors as protoc writes it. Who imports this needs python3-grpcio and python3-protobuf."""
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class Messages:
    def __init__(self, descriptors):
        self.pool = descriptor_pool.DescriptorPool()
        self.factory = message_factory.MessageFactory(self.pool)
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self.pool.Add(file)

    @classmethod
    def of_file(cls, path):
        with open(path, "rb") as f:
            return cls(f.read())

    def make(self, name, /, **fields):
        """A message by its full name."""
        return self.type_of(self.pool.FindMessageTypeByName(name))(**fields)

    def v1(self, name, /, **fields):
        return self.make("conclave.v1." + name, **fields)

    def type_of(self, descriptor):
        return self.factory.GetPrototype(descriptor)

    def method(self, service, name):
        """The descriptor of a method."""
        return self.pool.FindServiceByName(service).methods_by_name[name]

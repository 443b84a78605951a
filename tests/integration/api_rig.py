"""What the tests of the API share: the server over the fake engine, a client of it, and the list of tests."""
import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    print("skipped: python3-grpcio and python3-protobuf are not installed")
    sys.exit(77)

SET_ID = "b52983243d9b3d07805550218c45c4221f78b2b12c242ba0cd191eb018f660c2"  # of the fake engine
ARGS = argparse.Namespace()
POOL = descriptor_pool.DescriptorPool()
FACTORY = message_factory.MessageFactory(POOL)
TESTS = []
CHANGES = ["AddPack", "RemovePack", "UpdatePack", "Rollback", "PruneExperts", "RestoreExperts", "DefineSet", "UseSet", "ForgetSet"]
STREAMS = {"ServerReflectionInfo": (True, True), **{name: (False, True) for name in ["Generate", "WatchCluster", "Watch", *CHANGES]}}


def test(function):
    TESTS.append(function)
    return function


def load_descriptors(path):
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(open(path, "rb").read())
    for file in files.file:
        POOL.Add(file)


def message(name):
    return FACTORY.GetPrototype(POOL.FindMessageTypeByName(name))


def M(name, /, **fields):
    return message("conclave.v1." + name)(**fields)


class Server:
    """One api_server process; commands go to its standard input."""

    def __init__(self, max_files=None, **flags):
        limit = None if max_files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
        words = [ARGS.server] + ["%s=%s" % item for item in flags.items()]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=limit)
        self.line = self.process.stdout.readline().split(None, 1)
        self.refusal = self.line[1] if self.line and self.line[0] == "REFUSED" else None
        if self.refusal is None:
            assert self.line and self.line[0] == "READY", self.line
            self.port, self.http_port = map(int, self.line[1].split())
        self.channels = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for channel in self.channels:
            channel.close()
        if self.refusal is not None:
            self.process.communicate()
            return
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.process.stdout.close()
        assert code == 0 or exc[0] is not None, "the server exited with %d" % code

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def channel(self, credentials=None, options=(), host="127.0.0.1"):
        options = list(options) + [("grpc.use_local_subchannel_pool", 1)]
        target = "%s:%d" % (host, self.port)
        made = grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        self.channels.append(made)
        return made

    def client(self, *args, **kwargs):
        return Client(self.channel(*args, **kwargs))

    def rss_kb(self):
        for line in open("/proc/%d/status" % self.process.pid):
            if line.startswith("VmRSS"):
                return int(line.split()[1])

    def get(self, path):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.http_port, path), timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Client:
    def __init__(self, channel, service="conclave.v1.Inference", metadata=None):
        self.channel = channel
        self.service = service
        self.metadata = metadata

    def of(self, service):
        return Client(self.channel, service, self.metadata)

    def with_token(self, token):
        return Client(self.channel, self.service, (("authorization", "Bearer " + token),))

    def method(self, name, raw=False):
        described = POOL.FindServiceByName(self.service).FindMethodByName(name)
        reply = FACTORY.GetPrototype(described.output_type)
        streams = STREAMS.get(name, (False, False))
        kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}[streams]
        pack = (lambda b: b) if raw else (lambda m: m.SerializeToString())
        return getattr(self.channel, kind)("/%s/%s" % (self.service, name), pack, reply.FromString)

    def call(self, name, request, raw=False, timeout=30):
        return self.method(name, raw)(request, timeout=timeout, metadata=self.metadata)


def fails(code, function, text=None):
    try:
        result = function()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        assert error.code() == code, "expected %s, got %s: %s" % (code, error.code(), error.details())
        assert text is None or text in error.details(), error.details()
        return error
    raise AssertionError("expected %s, but the call succeeded" % code)


def eventually(condition, what, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "timed out: " + what
        time.sleep(0.02)


def trailers(error):
    return dict(error.trailing_metadata() or ())


CODE = grpc.StatusCode


# ------------------------------------------------------------------------------------------------ health and reflection
def health(s, channel=None):
    client = Client(channel or s.channel(), "grpc.health.v1.Health")
    request = message("grpc.health.v1.HealthCheckRequest")
    return lambda name, service="", timeout=30: client.call(name, request(service=service), timeout=timeout)


class Folder:
    def __enter__(self):
        self.path = tempfile.mkdtemp()
        return self.path

    def __exit__(self, *exc):
        shutil.rmtree(self.path)

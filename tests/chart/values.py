"""Values of the chart that its tests give it, without a cluster (chart.py) and with one (tests/kubernetes/)."""
import copy

BASE = {"model": {"existingClaim": "olmoe"}}
TLS = {"tls": {"existingSecret": "api-tls"}, "auth": {"existingSecret": "tokens"}}
RDMA = {"transport": {"lane": "rdma", "rdma": {"resource": "rdma/hca_shared_devices_a"}}}
SCALED = {"experts": {"autoscaling": {"enabled": True}}}
CERT = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}}, "auth": {"existingSecret": "tokens"}}


def merged(*all_values):
    out = {}
    for values in all_values:
        for key, value in values.items():
            out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else copy.deepcopy(value)
    return out


def at(path, value):
    """{"a": {"b": value}} of a.b"""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


# Values that must be refused, and a part of the sentence.
WRONG = [
    ({"model": {"existingClaim": ""}}, "model.existingClaim: give the PersistentVolumeClaim"),
    ({"model": {"volume": {"emptyDir": {}}}}, "give one of them"),
    ({"model": {"existingclaim": "x"}}, "existingclaim"),
    ({"model": {"mountPath": "model"}}, "/model/mountPath"),
    ({"model": {"subPath": "../etc"}}, "/model/subPath"),
    ({"model": {"dtype": "fp16"}}, "/model/dtype"),
    ({"model": {"existingClaim": "Not_A_Name"}}, "/model/existingClaim"),
    ({"replicas": 3}, "replicas"),
    ({"experts": {"replica": 3}}, "replica"),
    ({"experts": {"replicas": "3"}}, "/experts/replicas"),
    ({"experts": {"replicas": 257}}, "/experts/replicas"),
    ({"experts": {"replicas": -1}}, "/experts/replicas"),
    ({"experts": {"replicas": 0}}, "nobody would hold an expert"),
    ({"experts": {"memory": "6GB"}}, "/experts/memory"),
    ({"experts": {"resources": {"limits": None}}}, "give memory, or resources.limits.memory"),
    ({"experts": {"resources": {"limit": {"memory": "1Gi"}}}}, "limit"),
    ({"experts": {"options": {"model": "/x"}}}, "model"),
    ({"experts": {"options": {"load_bandwidth": "1G"}}}, "load_bandwidth"),
    ({"experts": {"extraArgs": ["zone=a"]}}, "/experts/extraArgs"),
    ({"experts": {"drainSeconds": 4000}}, "/experts/drainSeconds"),
    ({"experts": {"updateStrategy": {"type": "Recreate"}}}, "/experts/updateStrategy"),
    ({"experts": {"pools": {"default": {"replicas": 1}}}}, "give another name"),
    ({"experts": {"pools": {"Big": {"replicas": 1}}}}, "Big"),
    ({"experts": {"pools": {"big": {"replica": 1}}}}, "replica"),
    ({"experts": {"pools": {"big": {"autoscaling": {"enabled": True}}}}}, "autoscaling"),
    ({"packs": {"german": {"replicas": 1}}}, "existingClaim"),
    ({"packs": {"german": {"existingClaim": "g", "autoscaling": {}}}}, "autoscaling"),
    ({"packs": {"big": {"existingClaim": "g"}}, "experts": {"pools": {"big": {"replicas": 1}}}}, "there is a pool of that name"),
    ({"acceptPacks": ["german"]}, "/acceptPacks"),
    ({"acceptPacks": ["german@9F86"]}, "/acceptPacks"),
    ({"acceptPacks": ["offered", "german@" + "a" * 64]}, "offered means all of them"),
    ({"packKey": {"key": "../x"}}, "/packKey/key"),
    (merged(SCALED, at("experts.autoscaling.maxReplicas", 1)), "less than minReplicas"),
    (merged(SCALED, at("experts.autoscaling.kind", "keda")), "keda needs the URL of Prometheus"),
    (merged(SCALED, at("experts.autoscaling.kind", "vpa")), "/experts/autoscaling/kind"),
    ({"coordinator": {"replicas": 0}}, "/coordinator/replicas"),
    ({"coordinator": {"options": {"max-runing": 4}}}, "max-runing"),
    ({"coordinator": {"options": {"listen": "0.0.0.0:1"}}}, "listen"),
    ({"coordinator": {"service": {"type": "ExternalName"}}}, "/coordinator/service/type"),
    ({"placement": {"replication": 0}}, "/placement/replication"),
    ({"placement": {"minNodes": 3}}, "nothing would ever be placed"),
    ({"advertise": "name"}, "/advertise"),
    ({"image": {"tag": "latest"}}, "/image/tag"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"image": {"repository": "conclave:1"}}, "/image/repository"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"etcd": {"endpoints": []}}, "etcd.endpoints: give at least one URL"),
    ({"etcd": {"endpoints": ["etcd:2379"]}}, "/etcd/endpoints"),
    ({"etcd": {"user": "me"}}, "etcd.user and etcd.auth.existingSecret go together"),
    ({"etcd": {"tls": {"clientCert": True}}}, "etcd.tls.existingSecret must have the certificate"),
    ({"etcd": {"embedded": {"image": "etcd:latest"}}}, "/etcd/embedded/image"),
    ({"tls": {"clientAuth": "require", "clientCASecret": "ca"}}, "require needs tls.existingSecret"),
    (merged(TLS, {"tls": {"clientAuth": "require"}}), "go together"),
    (merged(TLS, {"tls": {"clientAuth": "maybe"}}), "/tls/clientAuth"),
    (merged(CERT, {"tls": {"existingSecret": "x"}}), "give one of them"),
    ({"tls": {"certManager": {"enabled": True}}}, "give the Issuer that signs"),
    ({"transport": {"lane": "rdma"}}, "transport.rdma.resource"),
    (merged(RDMA, {"transport": {"lane": "auto"}}), "transport.rdma.resource"),
    ({"transport": {"rdma": {"network": "10.0.0.0/8"}}}, "transport.rdma.resource"),
    (merged(RDMA, {"transport": {"rdma": {"network": "mine"}}}), "/transport/rdma/network"),
    ({"transport": {"lane": "tls", "rdma": {"network": "all"}}}, "tls uses no RDMA"),
    (merged(TLS, {"transport": {"lane": "ucx-tcp"}}), "not with tls and auth"),
    ({"transport": {"kind": "tcp"}}, "kind"),
    ({"pdb": {"maxUnavailable": 0}}, "/pdb/maxUnavailable"),
    ({"pdb": {"maxUnavailable": "0%"}}, "/pdb/maxUnavailable"),
    ({"peerSecret": {"key": "../x"}}, "/peerSecret/key"),
    ({"probes": {"startupSeconds": 0}}, "/probes/startupSeconds"),
    ({"log": {"format": "xml"}}, "/log/format"),
    ({"test": {"golden": "a b c"}}, "/test/golden"),
    ({"fullnameOverride": "a" * 31}, "/fullnameOverride"),
    ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "/metrics/serviceMonitor/interval"),
]

"""The Helm chart, without a cluster: lint, a matrix of renders with what must hold in each, wrong values that are refused with a
sentence, the types of several versions of Kubernetes, and every container's command line taken by the program itself.

usage: chart.py REPOSITORY BIN_DIR [unittest arguments]"""
import concurrent.futures
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml
except ImportError:
    print("skipped: python3-yaml is not installed")
    sys.exit(77)

from renders import WORKLOADS, Checks, Helm, arguments, containers, options_of_help, pod_of
from strict import OURS, Types
from values import BASE, CERT, RDMA, SCALED, TLS, WRONG, at, merged

ROOT, BIN = sys.argv[1:3]
CHART = os.path.join(ROOT, "helm", "conclave")
VERSIONS = ("1.25", "1.31", "1.37")
WHERE = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "get_helm.py")], capture_output=True, text=True)
if WHERE.returncode != 0:
    print(f"skipped: {WHERE.stderr.strip().splitlines()[-1]}")
    sys.exit(77)
TOOLS = WHERE.stdout.strip()
HELM = Helm(os.path.join(TOOLS, "helm"), CHART)
with open(os.path.join(CHART, "values.yaml"), encoding="utf-8") as f:
    DEFAULTS = yaml.safe_load(f)


def booleans(values, path=()):
    for key, value in values.items():
        if isinstance(value, bool):
            yield ".".join((*path, key)), value
        elif isinstance(value, dict):
            yield from booleans(value, (*path, key))


# What a boolean needs beside it to make sense.
NEEDS = {
    "tls.certManager.enabled": CERT,
    "etcd.tls.clientCert": {"etcd": {"tls": {"existingSecret": "etcd-tls"}}},
    "transport.rdma.ipcLock": RDMA,
}
# Not ours to flip: Kubernetes' own fields, whose flip the checks must refuse.
FIXED = ("podSecurityContext", "containerSecurityContext")

MATRIX = {
    "default": {},
    "tls-and-tokens": TLS,
    "mutual-tls": merged(TLS, {"tls": {"clientAuth": "require", "clientCASecret": "clients"}, "test": {"clientSecret": "test-client", "tokenSecret": "test-token"}}),
    "cert-manager": CERT,
    "rdma": RDMA,
    "rdma-without-ipc-lock": merged(RDMA, {"transport": {"rdma": {"ipcLock": False}}}),
    "rdma-in-a-network": merged(RDMA, {"transport": {"lane": "auto", "rdma": {"network": "10.0.0.0/8"}}}),
    "ucx-tcp": {"transport": {"lane": "ucx-tcp"}},
    "embedded-etcd": {"etcd": {"embedded": {"enabled": True}}},
    "etcd-with-everything": {"etcd": {"endpoints": ["https://a:2379", "https://b:2379"], "user": "conclave", "auth": {"existingSecret": "etcd-auth"},
                                      "tls": {"existingSecret": "etcd-tls", "clientCert": True}}},
    "peer-secret": {"peerSecret": {"existingSecret": "peers", "key": "k"}},
    "hpa": SCALED,
    "keda": merged(SCALED, {"experts": {"autoscaling": {"kind": "keda", "prometheus": "http://prometheus:9090"}}}),
    "dns": {"advertise": "dns"},
    "pools": {"experts": {"replicas": 0, "pools": {"big": {"replicas": 2, "memory": "40G", "nodeSelector": {"pool": "big"}, "options": {"zone": "b"}},
                                                   "small": {"replicas": 3, "drainSeconds": 30}}}, "advertise": "dns"},
    "packs": {"packs": {"german": {"existingClaim": "german"}, "law": {"existingClaim": "packs", "subPath": "law", "replicas": 2, "memory": "2G"}}},
    "accepted-packs": {"acceptPacks": ["german@" + "a" * 64, "law@" + "b" * 64], "packKey": {"existingSecret": "pack-key", "key": "k.pem"}},
    "all-packs": {"acceptPacks": ["offered"]},
    "pools-and-hpa": merged(SCALED, {"experts": {"pools": {"big": {"replicas": 2}}}, "placement": {"minNodes": 4}}),
    "three-coordinators": {"coordinator": {"replicas": 3, "options": {"max-running": 1048, "kv-memory": "4G", "no-prefix-cache": True}}},
    "volume": {"model": {"existingClaim": "", "volume": {"nfs": {"server": "files", "path": "/models"}}, "subPath": "olmoe"}},
    "cache-claim": {"model": {"cache": {"existingClaim": "cache"}}},
    "digest": {"image": {"repository": "registry.example:5000/team/conclave", "digest": "sha256:" + "a" * 64}},
    "network-policy": {"networkPolicy": {"enabled": True, "allowFrom": [{"namespaceSelector": {}}], "metricsFrom": [{"podSelector": {}}]},
                       "coordinator": {"health": {"enabled": True}}, "etcd": {"embedded": {"enabled": True}}},
    "network-policy-rdma": merged(RDMA, {"networkPolicy": {"enabled": True}}),
    "replicas-and-policy": {"placement": {"replication": 2, "minNodes": 2}, "experts": {"memory": "6G", "options": {"load-bandwidth": "2G"}}},
    "labels": {"commonLabels": {"team": "a"}, "commonAnnotations": {"note": "b"}, "coordinator": {"podLabels": {"tier": "api"}, "podAnnotations": {"n": "o"}},
               "experts": {"podAnnotations": {"n": "o"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high"}},
    "extras": {"extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
               "coordinator": {"extraEnv": [{"name": "UCX_LOG_LEVEL", "value": "warn"}], "extraArgs": ["--log-level=debug"]}},
    "named": {"fullnameOverride": "olmoe", "serviceAccount": {"create": False, "name": "mine"}, "pdb": {"maxUnavailable": "50%"}, "global": {"anything": {"goes": 1}}},
    "golden": {"test": {"golden": "5,6,7,8,9,10,11,12"}},
}
for path, value in booleans(DEFAULTS):
    if not path.startswith(FIXED):
        MATRIX["flip " + path] = merged(NEEDS.get(path, {}), at(path, not value))


def effective(values):
    return merged(DEFAULTS, BASE, values)


def help_of(*words):
    program, *rest = words
    done = subprocess.run([os.path.join(BIN, program), *rest, "--help"], capture_output=True, text=True, timeout=60)
    return options_of_help(done.stdout)


class Chart(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        """All renders at once: they take longest."""
        with concurrent.futures.ThreadPoolExecutor() as threads:
            asked = {name: threads.submit(HELM.render, merged(BASE, values)) for name, values in MATRIX.items()}
            cls.renders = {name: answer.result() for name, answer in asked.items()}

    def test_it_passes_lint(self):
        done = HELM.run("lint", "--strict", CHART, "--values", "-", values=BASE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_must_hold_in_every_render(self):
        for name, objects in self.renders.items():
            with self.subTest(name):
                Checks(self, effective(MATRIX[name]), objects).all()

    def test_a_value_changes_what_is_rendered(self):
        """A boolean that is flipped and changes nothing is one that no template reads."""
        unread = []
        for path, value in booleans(DEFAULTS):
            if not path.startswith(FIXED):
                needs = NEEDS.get(path, {})
                other = HELM.render(merged(BASE, needs, at(path, value))) if needs else self.renders["default"]
                if self.without_secret(other) == self.without_secret(self.renders["flip " + path]):
                    unread.append(path)
        self.assertEqual(unread, [])

    @staticmethod
    def without_secret(objects):
        return [d for d in objects if d["kind"] != "Secret"]

    def test_the_same_values_give_the_same_objects(self):
        again = HELM.render(merged(BASE, MATRIX["pools"]))
        self.assertEqual(self.without_secret(again), self.without_secret(self.renders["pools"]))
        self.assertEqual(HELM.render(merged(BASE, MATRIX["peer-secret"])), self.renders["peer-secret"])

    def test_selectors_are_those_of_every_earlier_version(self):
        """A StatefulSet's cannot be changed: an upgrade would be refused."""
        found = {d["metadata"]["name"]: d["spec"]["selector"]["matchLabels"] for d in self.renders["pools"] if d["kind"] in WORKLOADS}
        same = {"app.kubernetes.io/name": "conclave", "app.kubernetes.io/instance": "c"}
        self.assertEqual(found, {
            "c-coordinator": {**same, "app.kubernetes.io/component": "coordinator"},
            "c-expert": {**same, "app.kubernetes.io/component": "expert", "conclave/pool": "default"},
            "c-expert-big": {**same, "app.kubernetes.io/component": "expert", "conclave/pool": "big"},
            "c-expert-small": {**same, "app.kubernetes.io/component": "expert", "conclave/pool": "small"},
        })

    def test_two_releases_in_one_namespace_share_nothing(self):
        a, b = ({(d["kind"], d["metadata"]["name"]) for d in HELM.render(BASE, release=release)} for release in ("one", "two"))
        self.assertEqual(a & b, set())

    def test_clusters_on_one_etcd_have_names_of_their_own(self):
        names = set()
        for release, namespace in (("c", "a"), ("c", "b"), ("d", "a")):
            for _, _, _, words in arguments(HELM.render(BASE, release=release, namespace=namespace)):
                names |= {word for word in words if word.startswith("--cluster=")}
        self.assertEqual(names, {"--cluster=a.c", "--cluster=b.c", "--cluster=a.d"})

    def test_a_pool_takes_what_it_does_not_say_from_experts(self):
        values = merged(BASE, MATRIX["pools"], at("experts.options.isa", "avx2"))
        words = {d["metadata"]["name"]: containers(d)[-1]["args"] for d in HELM.render(values) if d["kind"] == "StatefulSet"}
        self.assertIn("--memory=40G", words["c-expert-big"])
        self.assertLessEqual({"--zone=b", "--isa=avx2", "--drain-timeout-ms=120000"}, set(words["c-expert-big"]))
        self.assertLessEqual({"--isa=avx2", "--drain-timeout-ms=30000"}, set(words["c-expert-small"]))
        self.assertFalse([w for w in words["c-expert-small"] if w.startswith(("--memory", "--zone"))])

    def test_a_pack_is_a_pool_that_offers_it(self):
        pools = {d["metadata"]["name"]: d for d in self.renders["packs"] if d["kind"] == "StatefulSet"}
        self.assertEqual({name: d["spec"]["replicas"] for name, d in pools.items()}, {"c-expert": 2, "c-expert-german": 1, "c-expert-law": 2})
        for name, d in pools.items():
            offered = [word for word in containers(d)[-1]["args"] if word.startswith("--pack=")]
            self.assertEqual(offered, [] if name == "c-expert" else ["--pack=/packs/" + name.rpartition("-")[2]])

    def test_every_argument_is_an_option_of_the_program(self):
        known = {}
        for name, objects in self.renders.items():
            with self.subTest(name):
                for container, program, rest, words in arguments(objects):
                    key = (program, *rest)
                    known.setdefault(key, help_of(*key))
                    for word in words:
                        self.assertIn(word.partition("=")[0], known[key], f"{container}: {word}")
        self.assertEqual(set(known), {("conclave-coordinator",), ("conclave-node",), ("conclave", "manifest"), ("conclave", "generate")})

    def test_the_programs_take_their_command_lines(self):
        """With their ranges and choices: --print-config reads everything and starts nothing."""
        lines = {(program, *rest, *words) for objects in self.renders.values() for _, program, rest, words in arguments(objects)}
        env = {k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}
        for line in sorted(lines):
            program, *words = line
            done = subprocess.run([os.path.join(BIN, program), *words, "--print-config"], capture_output=True, text=True, timeout=60,
                                  env={**env, "CONCLAVE_ID": "c-expert-0", "CONCLAVE_ADVERTISE": "10.0.0.7"})
            self.assertEqual((done.returncode, done.stderr), (0, ""), line)
        print(f"{len(lines)} command lines of {len(self.renders)} renders")

    def test_options_that_values_may_name_are_options(self):
        with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as file:
            schema = json.load(file)["properties"]
        for values, program in ((schema["coordinator"], "conclave-coordinator"), (schema["experts"], "conclave-node"),
                                (schema["experts"]["properties"]["pools"]["additionalProperties"], "conclave-node")):
            names = {"--" + name for name in values["properties"]["options"]["properties"]}
            self.assertLessEqual(names, help_of(program))
            for _, _, _, words in (a for a in arguments(self.renders["default"]) if a[1] == program):
                self.assertEqual(names & {word.partition("=")[0] for word in words}, set(), "the chart sets these itself")

    def test_wrong_values_are_refused_with_a_sentence(self):
        self.assertGreaterEqual(len(WRONG), 30)
        with concurrent.futures.ThreadPoolExecutor() as threads:
            answers = list(threads.map(lambda wrong: HELM.template(merged(BASE, wrong[0])), WRONG))
        for (values, words), done in zip(WRONG, answers):
            with self.subTest(values=values):
                self.assertNotEqual(done.returncode, 0, "taken")
                self.assertIn(words, done.stderr)
                self.assertNotRegex(done.stderr, r"nil pointer|can't evaluate|error calling (?!fail|include)")
        print(f"{len(WRONG)} wrong values refused")

    def test_a_release_with_a_long_name_is_refused(self):
        done = HELM.template(BASE, release="a" * 31)
        self.assertIn("give fullnameOverride", done.stderr)

    def test_every_object_of_values_is_closed(self):
        """But those that Kubernetes defines: labels, resources' names, sources of volumes."""
        with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as file:
            schema = json.load(file)
        missing = []

        def walk(s, values, path):
            for key, value in values.items():
                inner = s.get("properties", {}).get(key)
                if inner is None:
                    missing.append(f"{path}{key}: not in the schema")
                elif isinstance(value, dict) and value and "properties" in inner:
                    if inner.get("additionalProperties") is not False:
                        missing.append(f"{path}{key}: open")
                    walk(inner, value, f"{path}{key}.")

        walk(schema, DEFAULTS, "")
        self.assertIs(schema["additionalProperties"], False)
        self.assertEqual(missing, [])

        def unused(s, values, path):
            for key, inner in s.get("properties", {}).items():
                if not isinstance(values, dict) or key not in values:
                    yield f"{path}{key}"
                elif "properties" in inner and inner.get("additionalProperties") is False and isinstance(values[key], dict):
                    yield from unused(inner, values[key], f"{path}{key}.")

        open_ones = re.compile(r"\.options\.|\.resources\.claims|rollingUpdate")
        self.assertEqual([p for p in unused(schema, DEFAULTS, "") if not open_ones.search(p)], [], "in the schema, not in values.yaml")

    def test_notes_have_a_line_for_each_insecure_setting(self):
        def notes(*values):
            done = HELM.run("install", "c", CHART, "--dry-run=client", "--values", "-", values=merged(BASE, *values))
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.partition("NOTES:")[2]

        loose = notes(RDMA, {"acceptPacks": ["offered"]})
        for words in ("acceptPacks: offered, without packKey", "no TLS", "no tokens", "etcd without TLS", "transport rdma", "no NetworkPolicy"):
            self.assertIn("WARNING: " + words, loose)
        self.assertIn("WARNING: the embedded etcd is for trials", notes({"etcd": {"embedded": {"enabled": True}}}))
        self.assertIn("knows no ServiceMonitor", notes({"metrics": {"serviceMonitor": {"enabled": True}}}))
        self.assertIn("kubectl -n default port-forward svc/c-coordinator 50051", loose)
        tight = notes(TLS, {"etcd": {"tls": {"existingSecret": "e"}}, "networkPolicy": {"enabled": True}, "placement": {"replication": 2}})
        self.assertNotIn("WARNING", tight)
        self.assertNotIn("NOTE:", tight)

    def test_security_contexts_that_are_loosened_are_noticed_here(self):
        """The checks above would see it: they are not blind."""
        for path, value in (("containerSecurityContext.readOnlyRootFilesystem", False), ("containerSecurityContext.allowPrivilegeEscalation", True),
                            ("podSecurityContext.runAsNonRoot", False)):
            with self.assertRaises(AssertionError):
                Checks(self, effective({}), HELM.render(merged(BASE, at(path, value)))).security()

    def test_objects_are_of_the_types_of_kubernetes(self):
        different = {json.dumps(d, sort_keys=True): d for objects in self.renders.values() for d in self.without_secret(objects)}
        secret = next(d for d in self.renders["default"] if d["kind"] == "Secret")
        for version in VERSIONS:
            types = Types(os.path.join(TOOLS, "kubernetes-schemas.whl"), version)
            for d in [secret, *different.values()]:
                with self.subTest(f"{version} {d['kind']} {d['metadata']['name']}"):
                    complaints = types.check(d)
                    if complaints is None:
                        self.assertTrue(d["apiVersion"].startswith(OURS), "this version has no such kind")
                    else:
                        self.assertEqual(complaints, [])
        print(f"{len(different)} objects against the types of Kubernetes {', '.join(VERSIONS)}")
        deployment = next(d for d in copy.deepcopy(self.renders["default"]) if d["kind"] == "Deployment")
        pod_of(deployment)["containers"][0]["readinessProbe"]["httpget"] = {}
        deployment["spec"]["replicas"] = "1"
        self.assertEqual(len(types.check(deployment)), 2, "the check is not blind")

    def test_the_secret_of_the_members_is_long_and_kept(self):
        secret, = (d for d in self.renders["default"] if d["kind"] == "Secret")
        self.assertEqual(secret["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})
        self.assertGreaterEqual(len(secret["data"]["secret"]), 64)
        self.assertFalse([d for d in self.renders["peer-secret"] if d["kind"] == "Secret"])

    def test_it_can_be_packaged(self):
        with tempfile.TemporaryDirectory() as folder:
            done = HELM.run("package", CHART, "--destination", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            package, = os.listdir(folder)
            packed = Helm(HELM.program, os.path.join(folder, package)).render(merged(BASE, MATRIX["peer-secret"]))
            self.assertEqual(packed, self.renders["peer-secret"])

    def test_the_versions_agree(self):
        with open(os.path.join(CHART, "Chart.yaml"), encoding="utf-8") as file:
            chart = yaml.safe_load(file)
        done = subprocess.run([os.path.join(BIN, "conclave"), "--version"], capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(done.stdout, f"conclave {chart['appVersion']}\n")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])

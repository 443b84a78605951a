"""Renders of the chart, and what must hold in each of them."""
import re
import subprocess

import yaml

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
STANDARD_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", "app.kubernetes.io/version",
                   "app.kubernetes.io/managed-by", "helm.sh/chart"}
SELECTOR_LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", "conclave/pool"}
WORKLOADS = ("Deployment", "StatefulSet")
EXTERNAL_APIS = ["monitoring.coreos.com/v1", "cert-manager.io/v1", "keda.sh/v1alpha1"]
GRACE_S = 15  # beside the bounds of a drain


class Unique(yaml.SafeLoader):
    """Two keys of one name in an object: a server takes the last, and nobody sees it."""


def unique_mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert len(keys) == len(set(keys)), f"line {node.start_mark.line}: a key twice: {sorted(k for k in keys if keys.count(k) > 1)}"
    return loader.construct_mapping(node, deep=True)


Unique.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique_mapping)


class Helm:
    def __init__(self, program, chart):
        self.program, self.chart = program, chart

    def run(self, *args, values=None):
        return subprocess.run([self.program, *args], input=yaml.safe_dump(values or {}), capture_output=True, text=True, timeout=120)

    def template(self, values, *args, release="c", namespace="default"):
        apis = [word for api in EXTERNAL_APIS for word in ("--api-versions", api)]
        return self.run("template", release, self.chart, "--namespace", namespace, "--values", "-", *apis, *args, values=values)

    def render(self, values, *args, **where):
        done = self.template(values, *args, **where)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return [d for d in yaml.load_all(done.stdout, Unique) if d]


def pod_of(d):
    return d["spec"] if d["kind"] == "Pod" else d["spec"]["template"]["spec"] if d["kind"] in WORKLOADS else None


def containers(d):
    pod = pod_of(d)
    return [] if pod is None else pod.get("initContainers", []) + pod["containers"]


def labels_of_pods(d):
    return d["metadata"]["labels"] if d["kind"] == "Pod" else d["spec"]["template"]["metadata"]["labels"]


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


class Checks:
    """assertions: a unittest.TestCase. values: the effective ones, defaults merged in."""

    def __init__(self, assertions, values, objects):
        self.t, self.values, self.objects = assertions, values, objects

    def of_kind(self, *kinds):
        return [d for d in self.objects if d["kind"] in kinds]

    def all(self):
        for check in (self.names, self.labels, self.selectors, self.images, self.security, self.resources, self.mounts, self.references,
                      self.services, self.budgets, self.replicas, self.drains, self.environment):
            check()

    def names(self):
        seen = [(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in self.objects]
        self.t.assertEqual(len(seen), len(set(seen)), seen)
        for _, _, name in seen:
            self.t.assertRegex(name, r"\A[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?\Z")
        for d in self.objects:
            self.t.assertEqual(d["metadata"]["namespace"], "default", d["metadata"]["name"])

    def labels(self):
        for d in self.objects:
            self.t.assertLessEqual(STANDARD_LABELS, set(d["metadata"]["labels"]), d["metadata"]["name"])
            if d["kind"] in WORKLOADS:
                self.t.assertLessEqual(STANDARD_LABELS, set(labels_of_pods(d)))
            for value in d["metadata"]["labels"].values():
                self.t.assertRegex(value, r"\A[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")

    def selectors(self):
        """They can never be changed: nothing in them may depend on a version."""
        for d in self.of_kind(*WORKLOADS):
            selector = d["spec"]["selector"]["matchLabels"]
            self.t.assertLessEqual(set(selector), SELECTOR_LABELS)
            self.t.assertTrue(matches(selector, labels_of_pods(d)))
            others = [o for o in self.of_kind(*WORKLOADS) if o is not d and matches(selector, labels_of_pods(o))]
            self.t.assertEqual(others, [], "two workloads want the same pods")

    def images(self):
        for d in self.objects:
            for c in containers(d):
                image = c["image"]
                self.t.assertRegex(image, r"(:[\w.-]+|@sha256:[0-9a-f]{64})\Z")
                self.t.assertFalse(image.endswith(":latest"), image)
                self.t.assertEqual(c["terminationMessagePolicy"] if c["name"] != "etcd" else "FallbackToLogsOnError", "FallbackToLogsOnError")

    def uses_rdma(self):
        t = self.values["transport"]
        return t["lane"] == "rdma" or (t["lane"] == "auto" and t["rdma"]["network"] != "")

    def security(self):
        rdma = self.uses_rdma() and self.values["transport"]["rdma"]["ipcLock"]
        for d in self.objects:
            pod = pod_of(d)
            if pod is None:
                continue
            self.t.assertIs(pod["automountServiceAccountToken"], False)
            self.t.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.t.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for field in ("hostNetwork", "hostIPC", "hostPID"):
                self.t.assertNotIn(field, pod)
            for volume in pod.get("volumes", []):
                self.t.assertNotIn("hostPath", volume)
            for c in containers(d):
                context = dict(c["securityContext"])
                self.t.assertNotIn("privileged", context)
                if rdma and c["name"] in ("coordinator", "expert"):
                    self.t.assertEqual(context["capabilities"], {"add": ["IPC_LOCK"], "drop": ["ALL"]})
                    context["capabilities"] = {"drop": ["ALL"]}
                self.t.assertEqual(context, RESTRICTED, c["name"])

    def resources(self):
        for d in self.objects:
            for c in containers(d):
                self.t.assertIn("memory", c["resources"]["limits"], c["name"])
                self.t.assertLessEqual({"cpu", "memory"}, set(c["resources"]["requests"]), c["name"])
                if self.uses_rdma() and c["name"] in ("coordinator", "expert"):
                    self.t.assertEqual(c["resources"]["limits"][self.values["transport"]["rdma"]["resource"]], "1")

    def mounts(self):
        """Every mount has a volume, every volume a mount, and every file on a command line lies in a mount."""
        for d in self.objects:
            pod = pod_of(d)
            if pod is None:
                continue
            volumes = [v["name"] for v in pod.get("volumes", [])]
            self.t.assertEqual(len(volumes), len(set(volumes)))
            used = [m["name"] for c in containers(d) for m in c.get("volumeMounts", [])]
            self.t.assertEqual(set(volumes), set(used), d["metadata"]["name"])
            for c in containers(d):
                paths = [m["mountPath"] for m in c.get("volumeMounts", [])]
                self.t.assertEqual(len(paths), len(set(paths)))
                for arg in c.get("args", []):
                    path = arg.partition("=")[2]
                    if path.startswith("/"):
                        self.t.assertTrue(any(path == p or path.startswith(p + "/") for p in paths), f"{c['name']}: nothing is mounted for {arg}")

    def references(self):
        """What pods name is made here, or by somebody whom the values name."""
        made = {kind: {d["metadata"]["name"] for d in self.of_kind(kind)} for kind in ("Secret", "ServiceAccount", "ConfigMap")}
        v = self.values
        external = {s for s in (v["peerSecret"]["existingSecret"], v["packKey"]["existingSecret"], v["etcd"]["auth"]["existingSecret"], v["etcd"]["tls"]["existingSecret"],
                                v["tls"]["existingSecret"], v["tls"]["clientCASecret"], v["auth"]["existingSecret"], v["test"]["tokenSecret"],
                                v["test"]["clientSecret"]) if s}
        external |= {d["spec"]["secretName"] for d in self.of_kind("Certificate")}
        claims = {v["model"]["existingClaim"], v["model"]["cache"]["existingClaim"], *(pack["existingClaim"] for pack in v["packs"].values())} - {""}
        for d in self.objects:
            pod = pod_of(d)
            if pod is None:
                continue
            account = pod["serviceAccountName"]
            self.t.assertIn(account, made["ServiceAccount"] | {v["serviceAccount"]["name"] or "default"})
            for volume in pod.get("volumes", []):
                if "secret" in volume:
                    self.t.assertIn(volume["secret"]["secretName"], made["Secret"] | external, d["metadata"]["name"])
                if "persistentVolumeClaim" in volume:
                    self.t.assertIn(volume["persistentVolumeClaim"]["claimName"], claims)
        for claim in claims:
            self.t.assertTrue(any(claim == volume.get("persistentVolumeClaim", {}).get("claimName") for d in self.of_kind(*WORKLOADS)
                                  for volume in pod_of(d)["volumes"]))
        for secret in external - {d["spec"]["secretName"] for d in self.of_kind("Certificate")}:
            self.t.assertIn(secret, str(self.objects), "a secret of the values that nothing uses")

    def services(self):
        for s in self.of_kind("Service"):
            targets = [d for d in self.of_kind(*WORKLOADS) if matches(s["spec"]["selector"], labels_of_pods(d))]
            self.t.assertEqual(len(targets), 1, s["metadata"]["name"])
            ports = {p["name"] for c in containers(targets[0]) for p in c.get("ports", [])}
            for port in s["spec"]["ports"]:
                self.t.assertEqual(port["protocol"], "TCP")
                self.t.assertIn(port["targetPort"], ports)
        for d in self.of_kind("StatefulSet"):
            self.t.assertIn(d["spec"]["serviceName"], {s["metadata"]["name"] for s in self.of_kind("Service")})
        for d in self.objects:
            for c in containers(d):
                named = {p["name"]: p["containerPort"] for p in c.get("ports", [])}
                listens = {arg.split("=")[0]: int(arg.rpartition(":")[2]) for arg in c.get("args", []) if arg.startswith(("--listen=", "--http=", "--health="))}
                for option, port in {"--listen": named.get("api", named.get("link")), "--http": named.get("http"), "--health": named.get("health")}.items():
                    self.t.assertEqual(listens.get(option), port, f"{c['name']} {option}")
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if probe in c:
                        self.t.assertIn(c[probe]["httpGet"]["port"], named)

    def budgets(self):
        budgets = self.of_kind("PodDisruptionBudget")
        self.t.assertEqual(bool(budgets), self.values["pdb"]["enabled"])
        for d in self.of_kind(*WORKLOADS) if budgets else []:
            if not d["metadata"]["name"].endswith("-etcd"):
                self.t.assertEqual(len([b for b in budgets if matches(b["spec"]["selector"]["matchLabels"], labels_of_pods(d))]), 1)

    def replicas(self):
        scaled = {d["spec"]["scaleTargetRef"]["name"] for d in self.of_kind("HorizontalPodAutoscaler", "ScaledObject")}
        self.t.assertLessEqual(scaled, {d["metadata"]["name"] for d in self.of_kind("StatefulSet")})
        self.t.assertEqual(bool(scaled), self.values["experts"]["autoscaling"]["enabled"])
        for d in self.of_kind(*WORKLOADS):
            self.t.assertEqual("replicas" in d["spec"], d["metadata"]["name"] not in scaled)
            if d["kind"] == "Deployment":
                self.t.assertEqual(d["spec"]["strategy"]["type"], "Recreate" if d["spec"]["replicas"] == 1 else "RollingUpdate")
            elif not d["metadata"]["name"].endswith("-etcd"):
                self.t.assertEqual(d["spec"]["podManagementPolicy"], "Parallel")

    def drains(self):
        """A pod drains once, by SIGTERM, and is given as long as that may take."""
        for d in self.of_kind(*WORKLOADS):
            for c in containers(d):
                self.t.assertNotIn("lifecycle", c)
                bounds = [int(arg.split("=")[1]) for arg in c.get("args", []) if arg.startswith(("--drain-timeout-ms=", "--drain-delay-ms="))]
                if bounds:
                    self.t.assertEqual(pod_of(d)["terminationGracePeriodSeconds"], sum(bounds) // 1000 + GRACE_S)

    def environment(self):
        """Members are told who and where they are, and etcd's experts are met before they are ready."""
        for d in self.of_kind(*WORKLOADS):
            for c in containers(d):
                if c["name"] not in ("coordinator", "expert"):
                    continue
                env = {e["name"]: e for e in c["env"]}
                self.t.assertEqual(env["CONCLAVE_ID"]["valueFrom"], {"fieldRef": {"fieldPath": "metadata.name"}})
                if self.values["advertise"] == "dns" and c["name"] == "expert":
                    self.t.assertEqual(env["CONCLAVE_ADVERTISE"]["value"], f"$(CONCLAVE_ID).{d['spec']['serviceName']}.default.svc")
                    names = list(env)
                    self.t.assertLess(names.index("CONCLAVE_ID"), names.index("CONCLAVE_ADVERTISE"))
                else:
                    self.t.assertEqual(env["CONCLAVE_ADVERTISE"]["valueFrom"], {"fieldRef": {"fieldPath": "status.podIP"}})
        for s in self.of_kind("Service"):
            if s["metadata"]["labels"]["app.kubernetes.io/component"] == "expert":
                self.t.assertEqual((s["spec"]["clusterIP"], s["spec"]["publishNotReadyAddresses"]), ("None", True))


def arguments(objects):
    """(program, subcommand or None, options) of each container of ours; options as words."""
    for d in objects:
        for c in containers(d):
            program, *rest = c["command"]
            if program.startswith("/usr/bin/conclave"):
                yield c["name"], program.rsplit("/", 1)[1], rest, [a for a in c["args"] if a.startswith("--")]


def options_of_help(text):
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", text, re.MULTILINE))

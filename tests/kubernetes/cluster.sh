#!/bin/bash
# Brings up the cluster and runs a command in it; called by run.sh as the first process of fresh namespaces of processes, mounts and
# network, which end with it. etcd, control plane, kubelet and proxy of one node, containerd with runc, a bridge, a name server.
# usage: cluster.sh BIN_DIR PROGRAMS_DIR WORK_DIR COMMAND...     env: KUBE_GROUP, the control group that pods live below
# The command finds KUBECONFIG, KUBE_WORK (logs of all programs are in its log/) and the node's address KUBE_NODE_IP.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=$2 work=$3
node=10.244.0.1 services=10.96.0.0/24 first_service=10.96.0.1 names=10.96.0.10 start_s=120

# Files in memory, which are gone with the namespace of mounts. Programs write below /var and /run wherever they are told to write.
mount -t tmpfs tmpfs "$work"
mkdir -p "$work"/{var,var.work,pki,log,etcd,containerd,cni,kubelet,plugins}
mount -t overlay overlay -o "lowerdir=/var,upperdir=$work/var,workdir=$work/var.work" /var
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/containers /run/lock
mount -t tmpfs tmpfs /var/lib/containers
export TMPDIR=$work
cd "$work"

start() { # name, command
    local name=$1
    shift
    "$@" >"log/$name.log" 2>&1 </dev/null &
}
fail() { # what, name of the program whose log tells why
    echo "chart-e2e: $1; the end of its log:" >&2
    tail -n 20 "log/$2.log" >&2
    exit 1
}
wait_for() { # what, name of the program, command
    local what=$1 name=$2 end=$((SECONDS + start_s))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "$what: not within $start_s s" "$name"
        sleep 0.3
    done
}

"$here/images.sh" "$1" images >log/images.log 2>&1 || fail "the images cannot be made" images
shift 3

# ---- network: one bridge, on which pods are, and a route to everything that is a service
ip link set lo up
ip link add cni0 type bridge
ip addr add $node/24 dev cni0
ip link set cni0 up
ip route add $services dev cni0
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet

# ---- who may do what
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >pki/tokens
openssl genrsa -out pki/accounts.key 2048 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=kubernetes -addext "subjectAltName=IP:$node,IP:127.0.0.1,IP:$first_service" \
    -keyout pki/api.key -out pki/api.crt 2>/dev/null
cat >kubeconfig <<END
{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
 "clusters": [{"name": "c", "cluster": {"server": "https://$node:6443", "certificate-authority": "$work/pki/api.crt"}}],
 "users": [{"name": "u", "user": {"token": "$token"}}]}
END
export KUBECONFIG=$work/kubeconfig KUBE_WORK=$work KUBE_NODE_IP=$node

# ---- control plane
start etcd etcd --data-dir etcd --log-level error --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start apiserver "$programs/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --bind-address 0.0.0.0 --advertise-address $node --secure-port 6443 \
    --tls-cert-file pki/api.crt --tls-private-key-file pki/api.key --token-auth-file pki/tokens --authorization-mode RBAC --allow-privileged \
    --service-cluster-ip-range $services --service-account-key-file pki/accounts.key --service-account-signing-key-file pki/accounts.key \
    --service-account-issuer https://kubernetes --kubelet-preferred-address-types InternalIP --profiling=false
wait_for "the API server is ready" apiserver kubectl get --raw /readyz
start controllers "$programs/kube-controller-manager" --kubeconfig kubeconfig --service-account-private-key-file pki/accounts.key \
    --root-ca-file pki/api.crt --leader-elect=false --allocate-node-cidrs=false
start scheduler "$programs/kube-scheduler" --kubeconfig kubeconfig --leader-elect=false
start names /usr/bin/python3 -B "$here/names.py" $node "https://$node:6443" "$token"

# ---- containers
cat >cni/10-bridge.conflist <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "$work/addresses",
  "ranges": [[{"subnet": "10.244.0.0/24", "rangeStart": "10.244.0.10"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
cat >containerd.toml <<END
version = 2
root = "$work/containerd/root"
state = "/run/containerd-state"
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:e2e"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
END
start containerd containerd --config containerd.toml
wait_for "containerd answers" containerd ctr -a /run/containerd.sock version
for archive in images/*.tar; do ctr -a /run/containerd.sock -n k8s.io images import "$archive" >>log/containerd.log 2>&1; done

# ---- the node
echo "nameserver $node" >resolv.conf
cat >kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: $KUBE_GROUP
enforceNodeAllocatable: []
failSwapOn: false
clusterDNS: [$names]
clusterDomain: cluster.local
resolvConf: $work/resolv.conf
volumePluginDir: $work/plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
END
start kubelet "$programs/kubelet" --config kubelet.yaml --kubeconfig kubeconfig --node-ip $node --hostname-override node1 --root-dir "$work/kubelet" \
    --container-runtime remote --container-runtime-endpoint unix:///run/containerd.sock
# masquerade-all: an answer of a pod to a pod must come back by the node, also where the kernel has no br_netfilter.
start proxy "$programs/kube-proxy" --kubeconfig kubeconfig --hostname-override node1 --proxy-mode iptables --masquerade-all --cluster-cidr 10.244.0.0/24 \
    --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0
kubectl apply -f - >/dev/null <<END
{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
  "spec": {"clusterIP": "$names", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}},
 {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
  "subsets": [{"addresses": [{"ip": "$node"}], "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}]}]}
END
ready() { kubectl get node node1 | grep -q ' Ready'; }
wait_for "the node is ready" kubelet ready

cd "$here/../.."
code=0
"$@" || code=$?
exit "$code"

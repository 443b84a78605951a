{{- define "conclave.fullname" -}}
{{- $name := default .Release.Name .Values.fullnameOverride -}}
{{- if gt (len $name) 30 -}}
{{- fail (printf "%q has %d characters: names of members begin with it and have at most 63; give fullnameOverride, at most 30" $name (len $name)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "conclave.selector" -}}
app.kubernetes.io/name: conclave
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- if .pool }}
conclave/pool: {{ .pool }}
{{- end }}
{{- end -}}

{{- define "conclave.labels" -}}
{{ include "conclave.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: root, name, component, pool, annotations (a map) */}}
{{- define "conclave.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "conclave.labels" . | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "conclave.image" -}}
{{- $i := .Values.image -}}
{{- if $i.digest -}}{{ $i.repository }}@{{ $i.digest }}{{- else -}}{{ $i.repository }}:{{ default .Chart.AppVersion $i.tag }}{{- end -}}
{{- end -}}

{{- define "conclave.serviceAccount" -}}
{{- default (ternary (include "conclave.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "conclave.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}{{ include "conclave.fullname" . }}-tls{{- else -}}{{ .Values.tls.existingSecret }}{{- end -}}
{{- end -}}

{{- define "conclave.peerSecret" -}}
{{- default (printf "%s-peer" (include "conclave.fullname" .)) .Values.peerSecret.existingSecret -}}
{{- end -}}

{{- define "conclave.etcd" -}}
{{- if .Values.etcd.embedded.enabled -}}http://{{ include "conclave.fullname" . }}-etcd:2379{{- else -}}{{ join "," .Values.etcd.endpoints }}{{- end -}}
{{- end -}}

{{/* Clusters that share an etcd need different names. */}}
{{- define "conclave.cluster" -}}
{{- printf "%s.%s" .Release.Namespace (include "conclave.fullname" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "conclave.insecure" -}}
{{- if not (and (include "conclave.tlsSecret" .) .Values.auth.existingSecret) -}}true{{- end -}}
{{- end -}}

{{- define "conclave.any" -}}{{ ternary "[::]" "0.0.0.0" .Values.ipv6 }}{{- end -}}

{{/* The whole number that a value of YAML is, or its text. */}}
{{- define "conclave.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "conclave.options" -}}
{{- range $name, $value := . }}
- {{ printf "--%s=%s" $name (include "conclave.text" $value) | quote }}
{{- end }}
{{- end -}}

{{/* What coordinators and nodes have in common on the command line. */}}
{{- define "conclave.memberArgs" -}}
- --model={{ .Values.model.mountPath }}
- --cache-dir=/var/cache/conclave
- --dtype={{ .Values.model.dtype }}
- {{ printf "--etcd=%s" (include "conclave.etcd" .) | quote }}
- --cluster={{ include "conclave.cluster" . }}
- --secret-file=/etc/conclave/peer/{{ .Values.peerSecret.key }}
- --transport={{ .Values.transport.lane }}
{{- with .Values.transport.rdma.network }}
- --rdma-network={{ . }}
{{- end }}
- --http={{ include "conclave.any" . }}:8080
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- if .Values.packKey.existingSecret }}
- --pack-key=/etc/conclave/pack-key/{{ .Values.packKey.key }}
{{- end }}
{{- if not .Values.etcd.embedded.enabled }}
{{- with .Values.etcd.user }}
- {{ printf "--etcd-user=%s" . | quote }}
{{- end }}
{{- if .Values.etcd.auth.existingSecret }}
- --etcd-password-file=/etc/conclave/etcd-auth/{{ .Values.etcd.auth.key }}
{{- end }}
{{- if .Values.etcd.tls.existingSecret }}
- --etcd-ca=/etc/conclave/etcd-tls/ca.crt
{{- if .Values.etcd.tls.clientCert }}
- --etcd-cert=/etc/conclave/etcd-tls/tls.crt
- --etcd-key=/etc/conclave/etcd-tls/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "conclave.memberMounts" -}}
- {name: model, mountPath: {{ .Values.model.mountPath }}, readOnly: true{{ with .Values.model.subPath }}, subPath: {{ . | quote }}{{ end }}}
- {name: cache, mountPath: /var/cache/conclave}
- {name: peer, mountPath: /etc/conclave/peer, readOnly: true}
- {name: shm, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
{{- if .Values.packKey.existingSecret }}
- {name: pack-key, mountPath: /etc/conclave/pack-key, readOnly: true}
{{- end }}
{{- if not .Values.etcd.embedded.enabled }}
{{- if .Values.etcd.auth.existingSecret }}
- {name: etcd-auth, mountPath: /etc/conclave/etcd-auth, readOnly: true}
{{- end }}
{{- if .Values.etcd.tls.existingSecret }}
- {name: etcd-tls, mountPath: /etc/conclave/etcd-tls, readOnly: true}
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "conclave.memberVolumes" -}}
- name: model
  {{- if .Values.model.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.model.existingClaim }}, readOnly: true}
  {{- else }}
  {{- toYaml .Values.model.volume | nindent 2 }}
  {{- end }}
- name: cache
  {{- if .Values.model.cache.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.model.cache.existingClaim }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.model.cache.sizeLimit }}}
  {{- end }}
- name: peer
  secret: {secretName: {{ include "conclave.peerSecret" . }}, defaultMode: 288}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.transport.shmSize }}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with .Values.packKey.existingSecret }}
- name: pack-key
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- if not .Values.etcd.embedded.enabled }}
{{- with .Values.etcd.auth.existingSecret }}
- name: etcd-auth
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- with .Values.etcd.tls.existingSecret }}
- name: etcd-tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Who a member is, and where: the program knows neither by itself. root, service: of its stable name, or none */}}
{{- define "conclave.memberEnv" -}}
- name: CONCLAVE_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if .service }}
- name: CONCLAVE_ADVERTISE
  value: $(CONCLAVE_ID).{{ .service }}.{{ .root.Release.Namespace }}.svc
{{- else }}
- name: CONCLAVE_ADVERTISE
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
{{- end -}}

{{/* whether the programs may use RDMA */}}
{{- define "conclave.rdma" -}}
{{- $t := .Values.transport -}}
{{- if or (eq $t.lane "rdma") (and (eq $t.lane "auto") $t.rdma.network) }}true{{ end -}}
{{- end -}}

{{- define "conclave.securityContext" -}}
{{- $rdma := and (include "conclave.rdma" .) .Values.transport.rdma.ipcLock -}}
{{- $context := deepCopy .Values.containerSecurityContext -}}
{{- if $rdma -}}
{{- $capabilities := default dict $context.capabilities -}}
{{- $_ := set $context "capabilities" (merge (dict "add" (append (default list $capabilities.add) "IPC_LOCK")) $capabilities) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* root, resources: with the RDMA device where it may be used */}}
{{- define "conclave.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if include "conclave.rdma" .root -}}
{{- $limits := merge (dict .root.Values.transport.rdma.resource "1") (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "conclave.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 1
  failureThreshold: {{ include "conclave.text" .Values.probes.startupSeconds }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: {{ include "conclave.text" .Values.probes.livenessPeriodSeconds }}
  failureThreshold: {{ include "conclave.text" .Values.probes.livenessFailures }}
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: {{ include "conclave.text" .Values.probes.readinessPeriodSeconds }}
  failureThreshold: 2
  timeoutSeconds: 2
{{- end -}}

{{- define "conclave.manifestContainer" -}}
{{- if .Values.model.manifest.enabled }}
initContainers:
- name: manifest
  image: {{ include "conclave.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [/usr/bin/conclave, manifest]
  args: [{{ .Values.model.mountPath }}, --cache-dir=/var/cache/conclave]
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml .Values.model.manifest.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.containerSecurityContext | nindent 4 }}
  volumeMounts:
  - {name: model, mountPath: {{ .Values.model.mountPath }}, readOnly: true{{ with .Values.model.subPath }}, subPath: {{ . | quote }}{{ end }}}
  - {name: cache, mountPath: /var/cache/conclave}
{{- end }}
{{- end -}}

{{/* Of a pod: root, of (coordinator or a pool's values), selector (a dict for conclave.selector) */}}
{{- define "conclave.scheduling" -}}
serviceAccountName: {{ include "conclave.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .of.topologySpreadConstraints }}
  {{- toYaml .of.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "conclave.selector" .selector | nindent 8 }}
  {{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The pools as YAML: the one of experts.*, under the name "default", experts.pools, and one per pack. */}}
{{- define "conclave.pools" -}}
{{- $base := omit .Values.experts "pools" "autoscaling" -}}
{{- $pools := dict "default" $base -}}
{{- range $name, $pool := .Values.experts.pools -}}
{{- $_ := set $pools $name (merge (deepCopy $pool) (deepCopy $base)) -}}
{{- end -}}
{{- range $name, $pack := .Values.packs -}}
{{- $place := dict "pack" (pick $pack "existingClaim" "subPath") "replicas" 1 -}}
{{- $_ := set $pools $name (merge (omit (deepCopy $pack) "existingClaim" "subPath") $place (deepCopy $base)) -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}

{{- define "conclave.poolName" -}}
{{- include "conclave.fullname" .root }}-expert{{ if ne .pool "default" }}-{{ .pool }}{{ end -}}
{{- end -}}

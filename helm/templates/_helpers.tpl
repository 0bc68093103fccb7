{{/* What all names begin with: "hookline", however often the release's name says so. */}}
{{- define "hookline.base" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains "hookline" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-hookline" (.Release.Name | trunc 41 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "hookline.name" -}}
{{ include "hookline.base" . }}-operator
{{- end -}}

{{/*
The name of what is not in a namespace. Installations for some namespaces may stand side by side, so theirs differ; a
second one for all namespaces is a mistake, which Helm notices by the same name.
*/}}
{{- define "hookline.clusterName" -}}
{{ include "hookline.name" . }}{{ if .Values.watchNamespaces }}-{{ .Release.Namespace }}{{ end }}
{{- end -}}

{{- define "hookline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "hookline.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "hookline.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "hookline.selector" -}}
app.kubernetes.io/name: hookline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "hookline.labels" -}}
{{ include "hookline.selector" . }}
{{ include "hookline.commonLabels" . }}
{{- end -}}

{{- define "hookline.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hookline
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Pod Security Standard "restricted", for pods and for their containers. */}}
{{- define "hookline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "hookline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
Whether ControllerRevisions are read. `helm upgrade --reuse-values` brings the values of the chart before, which has no word of it:
what came later is read in this way, here and in the other templates.
*/}}
{{- define "hookline.migrates" -}}
{{- dig "controllerRevisions" true (.Values.migration | default dict) -}}
{{- end -}}

{{/* The namespaces that a webhook is for, as a requirement on their labels; nothing where it is for all. */}}
{{- define "hookline.watched" -}}
{{- with .Values.watchNamespaces -}}
- key: kubernetes.io/metadata.name
  operator: In
  values: {{ toJson . }}
{{- end -}}
{{- end -}}

{{/*
Where pods never get a sidecar: the cluster's own, and the operator's. Unless that one is watched by name: then the
operator's pods alone are left out, by their label `hookline.dev/inject: "false"`.
*/}}
{{- define "hookline.spared" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    - kube-system
    {{- if not (has .Release.Namespace .Values.watchNamespaces) }}
    - {{ .Release.Namespace }}
    {{- end }}
{{- end -}}

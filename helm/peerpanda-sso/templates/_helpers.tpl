{{- define "sso.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters, which leaves room for the suffix "-admin". */}}
{{- define "sso.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "sso.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sso.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sso.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sso.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sso.labels" -}}
{{ include "sso.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sso.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "sso.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "sso.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* Whether connections are stored in SQLite, on the volume. */}}
{{- define "sso.isSqlite" -}}
{{- if not .Values.secrets.databaseUrl.existingSecret }}true{{ end }}
{{- end }}

{{/* Whether a store is local to the pod: SQLite, or pending logins in memory. */}}
{{- define "sso.isLocal" -}}
{{- if or (not .Values.secrets.databaseUrl.existingSecret) (not .Values.secrets.redisUrl.existingSecret) }}true{{ end }}
{{- end }}

{{/* The Secret with the listeners' certificate; empty if they have none. */}}
{{- define "sso.tlsSecret" -}}
{{- if .Values.certManager.enabled }}{{ include "sso.fullname" . }}-tls{{ else }}{{ .Values.files.tlsCertFile.existingSecret }}{{ end }}
{{- end }}

{{/* The environment variable of a setting. */}}
{{- define "sso.variable" -}}
{{- if eq . "logFilter" }}RUST_LOG{{ else if hasPrefix "otel" . }}{{ snakecase . | upper }}{{ else }}SSO_{{ snakecase . | upper }}{{ end }}
{{- end }}

{{/* The settings that are mounted as files, as JSON: name -> source and key. */}}
{{- define "sso.mounts" -}}
{{- $mounts := dict }}
{{- range $name, $source := .Values.secrets }}
{{- if $source.existingSecret }}{{ $_ := set $mounts (printf "%sFile" $name) (dict "secret" $source.existingSecret "key" $source.key) }}{{ end }}
{{- end }}
{{- range $name, $source := .Values.files }}
{{- if $source.existingSecret }}{{ $_ := set $mounts $name (dict "secret" $source.existingSecret "key" $source.key) }}
{{- else if $source.existingConfigMap }}{{ $_ := set $mounts $name (dict "configMap" $source.existingConfigMap "key" $source.key) }}{{ end }}
{{- end }}
{{- if .Values.certManager.enabled }}
{{- $secret := include "sso.tlsSecret" . }}
{{- $_ := set $mounts "tlsCertFile" (dict "secret" $secret "key" "tls.crt") }}
{{- $_ := set $mounts "tlsKeyFile" (dict "secret" $secret "key" "tls.key") }}
{{- end }}
{{- $mounts | toJson }}
{{- end }}

{{/* A value as text. Helm reads numbers of a values file as float64, of which toString makes 1e+06. */}}
{{- define "sso.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else if not (kindIs "invalid" .) }}{{ toString . }}{{ end }}
{{- end }}

{{/* The port of an address such as 0.0.0.0:50051. */}}
{{- define "sso.port" -}}
{{- splitList ":" . | last }}
{{- end }}

{{/*
Refuses values that can't work, all of them at once, and says how to get what is missing. values.schema.json only checks
names and types, because it speaks before this does.
*/}}
{{- define "sso.check" -}}
{{- $problems := concat (include "sso.missing" . | fromJsonArray) (include "sso.contradictions" . | fromJsonArray) (include "sso.malformed" . | fromJsonArray) }}
{{- if $problems }}
{{- fail (printf "\n\npeerpanda-sso can't run with these values:\n\n- %s\n\nREADME.md of the chart lists all values, and ci/production-values.yaml is an example. To try the service on a development cluster without any of this, use ci/dev-values.yaml." (join "\n- " $problems)) }}
{{- end }}
{{- end }}

{{/* What must be given and is not, as a JSON list of sentences with commands. */}}
{{- define "sso.missing" -}}
{{- $name := include "sso.fullname" . }}
{{- $create := printf "kubectl create secret generic %s-%%s --namespace %s" $name .Release.Namespace }}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- $files := .Values.files }}
{{- $problems := list }}
{{- if not .Values.settings.publicUrl }}
{{- $problems = append $problems "settings.publicUrl is not set: the origin of your web tier, under which customers register redirect URIs at their IdP.\n    --set settings.publicUrl=https://app.example.com" }}
{{- end }}
{{- with .Values.secrets.encryptionKeys }}
{{- if not (or .existingSecret .generate) }}
{{- $problems = append $problems (printf "secrets.encryptionKeys.existingSecret is not set: the key that encrypts client secrets and pending logins. Keep a copy of it in a safe place.\n    %s --from-literal=%s=\"$(openssl rand -base64 32)\"\n    --set secrets.encryptionKeys.existingSecret=%s-keys" (printf $create "keys") .key $name) }}
{{- end }}
{{- end }}
{{- if $several }}
{{- with .Values.secrets.databaseUrl }}
{{- if not .existingSecret }}
{{- $problems = append $problems (printf "secrets.databaseUrl.existingSecret is not set: several replicas need PostgreSQL. (One replica can use SQLite: replicaCount=1 and autoscaling.enabled=false.)\n    %s --from-literal=%s='postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full'\n    --set secrets.databaseUrl.existingSecret=%s-database" (printf $create "database") .key $name) }}
{{- end }}
{{- end }}
{{- with .Values.secrets.redisUrl }}
{{- if not .existingSecret }}
{{- $problems = append $problems (printf "secrets.redisUrl.existingSecret is not set: several replicas share pending logins in Redis. (One replica can keep them in memory: replicaCount=1 and autoscaling.enabled=false.)\n    %s --from-literal=%s='rediss://USER:PASSWORD@HOST:PORT/DB'\n    --set secrets.redisUrl.existingSecret=%s-redis" (printf $create "redis") .key $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne (toString .Values.settings.allowInsecureListen) "true" }}
{{- with $files.callersFile }}
{{- if not .existingSecret }}
{{- $problems = append $problems (printf "files.callersFile.existingSecret is not set: the programs that may call, with the token_sha256 that `peerpanda-sso tokens generate` prints.\n    %s --from-file=%s=callers.toml\n    --set files.callersFile.existingSecret=%s-callers" (printf $create "callers") .key $name) }}
{{- end }}
{{- end }}
{{- if not (or .Values.certManager.enabled $files.tlsCertFile.existingSecret $files.tlsKeyFile.existingSecret) }}
{{- $problems = append $problems (printf "files.tlsCertFile.existingSecret is not set: the certificate of both listeners, for the names %s and %s-admin. (cert-manager can issue it: certManager.enabled=true and certManager.issuerRef.name. Behind a service mesh that provides TLS and authenticates callers: settings.allowInsecureListen=true.)\n    %s --type=kubernetes.io/tls --from-file=%s=tls.crt --from-file=%s=tls.key --from-file=ca.crt\n    --set files.tlsCertFile.existingSecret=%s-tls --set files.tlsKeyFile.existingSecret=%s-tls" $name $name (printf $create "tls") $files.tlsCertFile.key $files.tlsKeyFile.key $name $name) }}
{{- end }}
{{- end }}
{{- if and .Values.certManager.enabled (not .Values.certManager.issuerRef.name) }}
{{- $problems = append $problems "certManager.issuerRef.name is not set: the issuer of the listeners' certificate. `kubectl get clusterissuers` lists them.\n    --set certManager.issuerRef.name=ISSUER" }}
{{- end }}
{{- $problems | toJson }}
{{- end }}

{{/* Values that contradict each other, as a JSON list of sentences. */}}
{{- define "sso.contradictions" -}}
{{- $files := .Values.files }}
{{- $secrets := .Values.secrets }}
{{- $problems := list }}
{{- if and $secrets.encryptionKeys.generate (or $secrets.encryptionKeys.existingSecret $secrets.databaseUrl.existingSecret $secrets.redisUrl.existingSecret) }}
{{- $problems = append $problems "secrets.encryptionKeys.generate creates a key next to the SQLite file: it can't be used with secrets.encryptionKeys.existingSecret, secrets.databaseUrl or secrets.redisUrl" }}
{{- end }}
{{- if and .Values.certManager.enabled (or $files.tlsCertFile.existingSecret $files.tlsKeyFile.existingSecret) }}
{{- $problems = append $problems "certManager.enabled and files.tlsCertFile name two certificates: set only one of them" }}
{{- else if ne (empty $files.tlsCertFile.existingSecret) (empty $files.tlsKeyFile.existingSecret) }}
{{- $problems = append $problems "files.tlsCertFile.existingSecret and files.tlsKeyFile.existingSecret belong together: set both" }}
{{- end }}
{{- if and (or $files.tlsClientCaFile.existingSecret $files.tlsClientCaFile.existingConfigMap) (not (include "sso.tlsSecret" .)) }}
{{- $problems = append $problems "files.tlsClientCaFile verifies callers' certificates, which needs TLS: set certManager.enabled or files.tlsCertFile" }}
{{- end }}
{{- range $name, $source := $files }}
{{- if and $source.existingSecret $source.existingConfigMap }}
{{- $problems = append $problems (printf "files.%s names a Secret and a ConfigMap: set only one of existingSecret and existingConfigMap" $name) }}
{{- end }}
{{- end }}
{{- if and (eq (toString .Values.settings.allowInsecureProviders) "true") (not (and (include "sso.isLoopback" .Values.settings.listen) (include "sso.isLoopback" .Values.settings.adminListen))) }}
{{- $problems = append $problems "settings.allowInsecureProviders works only with listeners at a loopback address, which no Service reaches: allow IdPs at internal addresses by settings.accountProviderCidrs and trust their CAs by settings.accountProviderCas" }}
{{- end }}
{{- if and (not .Values.persistence.enabled) .Values.persistence.existingClaim }}
{{- $problems = append $problems "persistence.existingClaim is not used if persistence.enabled is false: set only one of them" }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasPrefix "SSO_" .name }}
{{- $problems = append $problems (printf "extraEnv sets %s: set it under settings, secrets or files, where the chart knows of it" .name) }}
{{- end }}
{{- end }}
{{- if .Values.networkPolicy.enabled }}
{{- range $peers := list "loginFrom" "adminFrom" "metricsFrom" }}
{{- if not (get $.Values.networkPolicy $peers) }}
{{- $problems = append $problems (printf "networkPolicy.%s is empty, which admits everybody: name who may connect, or set networkPolicy.enabled=false" $peers) }}
{{- end }}
{{- end }}
{{- end }}
{{- $needed := add .Values.preStopSeconds (include "sso.seconds" (default "25s" .Values.settings.drainTimeout)) 15 }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $needed) }}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds must be at least %d: preStopSeconds, settings.drainTimeout and 15 s, in which the last login attempts and spans are written" $needed) }}
{{- end }}
{{- if and .Values.service.login.headless (ne (toString .Values.service.login.port) (include "sso.port" .Values.settings.listen)) }}
{{- $problems = append $problems (printf "service.login.port must be the port of settings.listen (%s), because a headless Service does not map ports: change one of them, or set service.login.headless=false" (include "sso.port" .Values.settings.listen)) }}
{{- end }}
{{- $problems | toJson }}
{{- end }}

{{/* Values with a wrong form, as a JSON list of sentences. */}}
{{- define "sso.malformed" -}}
{{- $problems := list }}
{{- range $rule := include "sso.formats" . | fromYamlArray }}
{{- range $path := $rule.values }}
{{- $value := $.Values }}
{{- range splitList "." $path }}{{ $value = get $value . }}{{ end }}
{{- $text := include "sso.text" $value }}
{{- $may := or (and (eq $text "") (not $rule.required)) (regexMatch (printf "^(%s)$" $rule.pattern) $text) }}
{{- if not $may }}
{{- $problems = append $problems (printf "%s must be %s, not %q" $path $rule.words $text) }}
{{- end }}
{{- end }}
{{- end }}
{{- $problems | toJson }}
{{- end }}

{{/* The forms of values. An empty value keeps a default, unless it is required. */}}
{{- define "sso.formats" -}}
- values: [settings.listen, settings.adminListen, settings.metricsListen]
  required: true
  pattern: '(\[[0-9a-fA-F:]+\]|[0-9.]+):[0-9]+'
  words: an IP address and a port such as 0.0.0.0:50051
- values: [settings.publicUrl]
  pattern: '(https://[^/?#\s]+|http://(localhost|127\.0\.0\.1)(:[0-9]+)?)/?'
  words: an https origin without a path (http only at localhost), such as https://app.example.com
- values: [settings.stateTtl, settings.answerTtl, settings.knownConnectionsMaxAge, settings.identityTtl, settings.identityKeyLifetime, settings.drainTimeout]
  pattern: '([0-9]+(ms|s|m|h|d)\s*)+'
  words: a duration such as 15m
- values: [settings.beginRatePerClient, settings.beginRate]
  pattern: '[0-9]+/[0-9]*(s|m|h)'
  words: a count and a period such as 120/1m
- values: [settings.memoryPendingLogins, settings.knownConnections, settings.maxInFlight, settings.metricsAccounts]
  pattern: '[1-9][0-9]{0,6}|10000000'
  words: a number of 1 to 10000000
- values: [settings.allowedProviderCidrs]
  pattern: '([0-9a-fA-F.:]+/[0-9]+(\s*,\s*)?)+'
  words: comma separated networks such as 10.20.0.0/16
- values: [settings.accountProviderCidrs]
  pattern: '([a-z0-9-]+\s*=\s*[0-9a-fA-F.:]+/[0-9]+(\s*,\s*)?)+'
  words: comma separated accounts and networks such as acme=10.20.0.0/16
- values: [settings.accountProviderCas]
  pattern: '([a-z0-9-]+\s*=\s*/[^,=]+(\s*,\s*)?)+'
  words: comma separated accounts and files such as acme=/etc/acme-ca/ca.crt
- values: [settings.identityAudience]
  pattern: '[!-~]{1,256}'
  words: 1 to 256 visible ASCII characters
- values: [settings.otelExporterOtlpEndpoint]
  pattern: 'https?://.+'
  words: an http or https URL such as http://localhost:4317
- values: [image.digest]
  pattern: 'sha256:[0-9a-f]{64}'
  words: sha256:, followed by 64 hexadecimal digits
- values: [podDisruptionBudget.maxUnavailable]
  required: true
  pattern: '[1-9][0-9]{0,2}|[1-9][0-9]?%'
  words: a number of pods or a percentage below 100%
- values: [serviceMonitor.interval]
  required: true
  pattern: '[0-9]+(s|m)'
  words: a duration such as 30s
{{- end }}

{{/* The seconds of a duration such as "1m 30s", rounded up. */}}
{{- define "sso.seconds" -}}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 }}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) (regexFind "[a-z]+$" .) }}
{{- $milliseconds = add $milliseconds (mul (regexFind "^[0-9]+" . | int) $unit) }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{- define "sso.isLoopback" -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" . }}true{{ end }}
{{- end }}

{{- /* The port of an URL; of a secret, AWS's own, which is open for where it says to send if that is https. */}}
{{- define "everflame.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if ne $url.scheme "http" }}443{{ else }}80{{ end }}
{{- end }}
{{- /* Where profiles go as well, as the option --also has it. */}}
{{- define "everflame.also" -}}
{{- $urls := list -}}
{{- range $at, $to := .Values.agent.also -}}
{{- $needs := list -}}
{{- with $to.name }}{{ $needs = append $needs (printf "name=%s" .) }}{{ end -}}
{{- if $to.apiKeySecret }}{{ $needs = append $needs (printf "api-key-file=/etc/everflame/also-%d/apiKey" $at) }}{{ end -}}
{{- if $to.tokenSecret }}{{ $needs = append $needs (printf "token-file=/etc/everflame/also-%d/token" $at) }}{{ end -}}
{{- $mark := contains "?" $to.endpoint | ternary "&" "?" -}}
{{- $urls = append $urls (join $mark (compact (list $to.endpoint (join "&" $needs)))) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end }}
{{- /* What agent and server are told; a digest of it in their pods' template replaces them when it changes. */}}
{{- define "everflame.agentSettings" -}}
EVERFLAME_ENDPOINT: {{ .Values.agent.endpoint | default (printf "%s://everflame-server:4040" (ternary "https" "http" (ne .Values.tlsSecret ""))) }}
{{- with include "everflame.also" . }}
EVERFLAME_ALSO: {{ . | quote }}
{{- end }}
EVERFLAME_RATE: {{ .Values.agent.rate | quote }}
EVERFLAME_MEMORY: {{ .Values.agent.memory }}
EVERFLAME_LOG: {{ .Values.agent.log }}
EVERFLAME_ALLOW: {{ join ", " .Values.agent.allow | quote }}
EVERFLAME_DENY: {{ join ", " .Values.agent.deny | quote }}
{{- end }}
{{- define "everflame.serverSettings" -}}
# The names under which it may be asked, beside its own addresses and localhost.
EVERFLAME_ALLOWED_HOSTS: everflame-server,everflame-server.{{ .Release.Namespace }},everflame-server.{{ .Release.Namespace }}.svc,everflame-server.{{ .Release.Namespace }}.svc.cluster.local{{ range .Values.server.allowedHosts }},{{ . }}{{ end }}
EVERFLAME_RETENTION_HOURS: {{ .Values.server.retentionHours | quote }}
EVERFLAME_RETENTION_BYTES: {{ .Values.server.retentionBytes | quote }}
EVERFLAME_LOG: {{ .Values.server.log }}
{{- end }}
